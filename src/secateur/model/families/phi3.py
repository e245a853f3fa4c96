"""Phi-3: q/k/v and gate/up are one stored tensor each, so nothing is left to group."""

import copy
from typing import Any

from secateur.model.families import Family, Part

FAMILY = Family(
    types=("phi3",),
    parts=(
        Part("heads", ("self_attn.qkv_proj",), "self_attn.o_proj", ("input_layernorm",), fused="below"),
        Part("channels", ("mlp.gate_up_proj",), "mlp.down_proj", ("post_attention_layernorm",)),
    ),
)


def recount(attention: Any) -> None:
    """It asks the config for its query heads, and itself for its KV heads: so it gets a config of its own."""
    heads = attention.o_proj.weight.shape[1] // attention.head_dim
    attention.config = copy.copy(attention.config)
    attention.config.num_attention_heads = heads
    attention.num_key_value_heads = heads // attention.num_key_value_groups
