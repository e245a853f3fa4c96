"""GPT-2: every linear layer is a Conv1D (stored inputs x outputs), q/k/v are one tensor, positions are learned."""

from typing import Any

from secateur.model.families import Family, Part

FAMILY = Family(
    types=("gpt2",),
    parts=(
        Part("heads", ("attn.c_attn",), "attn.c_proj", ("ln_1",), fused="below", heads_told=False),
        Part("channels", ("mlp.c_fc",), "mlp.c_proj", ("ln_2",)),
    ),
)


def recount(attention: Any) -> None:
    """It splits what `c_attn` makes at a width of its own."""
    attention.split_size = attention.c_proj.weight.shape[0]
    attention.num_heads = attention.split_size // attention.head_dim
