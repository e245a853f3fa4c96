"""What a config says of a network in which every block has lost the same channels, heads and experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: what transformers calls the width of an MLP, by the layer that mixes its channels
_WIDTHS = {
    "down_proj": ("intermediate_size",),
    "dense_4h_to_h": ("intermediate_size",),
    "fc2": ("ffn_dim", "intermediate_size"),
    "c_proj": ("n_inner",),
}


def widths(config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The settings of a network in which every block has lost the same channels, heads and experts; `shapes` are those
    of the parameters that are smaller."""
    out: dict[str, Any] = {}
    for parameter, (first, *rest) in shapes.items():
        layer = parameter.rpartition(".")[0].rpartition(".")[2]
        if layer in ("k_proj", "q_proj") and rest:
            heads = config["num_attention_heads"]
            head = config.get("head_dim") or config["hidden_size"] // heads
            name = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}[layer]
            out |= {"head_dim": head, name: first // head}
        elif layer == "experts":
            out["num_local_experts" if "num_local_experts" in config else "num_experts"] = first
        elif layer in _WIDTHS:
            name = next((name for name in _WIDTHS[layer] if name in config), _WIDTHS[layer][0])
            out[name] = first if layer == "c_proj" else rest[0]  # GPT-2's are stored inputs x outputs
    return out
