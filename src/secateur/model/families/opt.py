"""OPT: learned positions, biases everywhere, a plain two-layer MLP."""

from typing import Any

from secateur.model.families import QKV, Family, Part

FAMILY = Family(
    types=("opt",),
    groups=(QKV,),
    parts=(
        Part("heads", QKV.members, "self_attn.out_proj", ("self_attn_layer_norm",), heads_told=False),
        Part("channels", ("fc1",), "fc2", ("final_layer_norm",)),
    ),
)


def recount(attention: Any) -> None:
    """It folds queries, keys and values into a number of heads."""
    attention.num_heads = attention.out_proj.weight.shape[1] // attention.head_dim
