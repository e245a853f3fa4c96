"""Phi-3: q/k/v and gate/up are one stored tensor each, so nothing is left to group. Its attention counts heads by the
config, and so goes whole or not at all."""

from secateur.model.families import Family, Part

FAMILY = Family(
    types=("phi3",),
    parts=(
        Part("", ("self_attn.qkv_proj",), "self_attn.o_proj", ("input_layernorm",)),
        Part("channels", ("mlp.gate_up_proj",), "mlp.down_proj", ("post_attention_layernorm",)),
    ),
)
