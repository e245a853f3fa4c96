"""What a config says of a network in which every block has lost the same channels, heads and experts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from secateur.model.families import family

#: what transformers calls the width of an MLP, by the layer that mixes its channels
_WIDTHS = {
    "down_proj": ("intermediate_size",),
    "dense_4h_to_h": ("intermediate_size",),
    "fc2": ("ffn_dim", "intermediate_size"),
    "c_proj": ("n_inner",),
}


def untold(config: Mapping[str, Any]) -> str | None:
    """Why the config of such a model cannot say that all blocks have fewer heads, or None."""
    kind = str(config.get("model_type"))
    told = all(part.heads_told for part in family(kind).parts if part.by == "heads")
    said = f"a config of `{kind}` takes heads to be as wide as the network over their number, so that a plain file"
    return None if told else f"{said} holds all of them"


def unreadable(config: Mapping[str, Any], left: int) -> str | None:
    """Why transformers takes no config of such a model whose blocks all have so many KV heads left, or None: of many
    architectures the width must be a multiple of the heads, though heads are not as wide as that tells."""
    heads = config.get("num_attention_heads", 0)
    pairs = config.get("num_key_value_heads") or heads
    if not pairs or left >= pairs:
        return None
    said = {"num_attention_heads": left * heads // pairs, "num_key_value_heads": left}
    said["head_dim"] = config.get("head_dim") or config.get("hidden_size", 0) // heads
    return _refusal(json.dumps({**config, **said}, sort_keys=True))


@cache
def _refusal(config: str) -> str | None:
    from transformers import AutoConfig

    told = json.loads(config)
    try:
        AutoConfig.for_model(told.pop("model_type"), **told)
    except Exception as error:  # whatever a config's own checks raise: ours is read by no one then
        return f"transformers refuses such a config: {str(error).strip().splitlines()[-1].strip()}"
    return None


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
        elif layer == "qkv_proj":  # queries, keys and values one below the other
            heads = config["num_attention_heads"]
            pairs = config.get("num_key_value_heads") or heads
            head = config.get("head_dim") or config["hidden_size"] // heads
            left = first // ((heads // pairs + 2) * head)
            out |= {"head_dim": head, "num_attention_heads": left * heads // pairs, "num_key_value_heads": left}
        elif layer == "experts":
            out["num_local_experts" if "num_local_experts" in config else "num_experts"] = first
        elif layer in _WIDTHS:
            name = next((name for name in _WIDTHS[layer] if name in config), _WIDTHS[layer][0])
            out[name] = first if layer == "c_proj" else rest[0]  # GPT-2's are stored inputs x outputs
    return out
