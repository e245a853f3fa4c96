"""GPT-2: every linear layer is a Conv1D (stored inputs x outputs), q/k/v are one tensor, positions are learned."""

from secateur.model.families import Family, Part

FAMILY = Family(
    types=("gpt2",),
    parts=(
        Part("", ("attn.c_attn",), "attn.c_proj", ("ln_1",)),
        Part("channels", ("mlp.c_fc",), "mlp.c_proj", ("ln_2",)),
    ),
)
