"""GPT-NeoX (Pythia): q/k/v are one tensor, heads interleaved; attention and MLP run side by side."""

from secateur.model.families import Family, Part

FAMILY = Family(
    types=("gpt_neox",),
    parts=(
        Part(
            "heads",
            ("attention.query_key_value",),
            "attention.dense",
            ("input_layernorm",),
            fused="together",
            heads_told=False,
        ),
        Part("channels", ("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h", ("post_attention_layernorm",)),
    ),
)
