"""A model with some of its blocks: tensors numbered anew, and a config that says so.

The number of a block is the first one in a tensor's name. Settings that have one entry for every block are shortened;
those that go by a block's number (every sixth attention is global) are spelled out first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from secateur.types import Matrix, Unit

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
#: settings that say by a rule which blocks are of which kind; written out, they rule no more
_RULES = ("sliding_window_pattern", "_sliding_window_pattern")


def block_of(name: str) -> int | None:
    """The block that a tensor belongs to: the first number in its name."""
    found = re.search(r"\.(\d+)(?=\.|#|\[|$)", name)
    return int(found[1]) if found else None


def renumbered(name: str, kept: Sequence[int]) -> str:
    """The name when only the blocks `kept` are left, numbered from 0; empty if it is of another block.

    >>> renumbered("model.layers.7.mlp.up_proj.weight", [0, 7])
    'model.layers.1.mlp.up_proj.weight'
    """
    at = block_of(name)
    if at is None:
        return name
    return re.sub(r"\.\d+(?=\.|#|\[|$)", f".{kept.index(at)}", name, count=1) if at in kept else ""


def blocks_left(before: Sequence[Unit], after: Sequence[Unit]) -> list[int] | None:
    """The blocks that are left where some are gone whole, else None."""
    every = {unit.block for unit in before if unit.block is not None}
    left = {now.block for was, now in zip(before, after, strict=True) if now.block is not None and now.matrices}
    return sorted(left) if left != every else None


def renumbered_units(units: Sequence[Unit], kept: Sequence[int]) -> tuple[Unit, ...]:
    """What is left of units, under its new names; units are called what the plan calls them."""
    return tuple(replace(unit, matrices=tuple(_renumbered(m, kept) for m in unit.matrices)) for unit in units)


def _renumbered(matrix: Matrix, kept: Sequence[int]) -> Matrix:
    tensor, tap, place = (renumbered(name, kept) for name in (matrix.tensor, matrix.tap, matrix.place))
    return replace(matrix, tensor=tensor, tap=tap, place=place)


def config_of_blocks(config: Mapping[str, Any], kept: Sequence[int], whole: Any = None) -> dict[str, Any]:
    """The config of the model that has only the blocks `kept`. `whole` is the same as transformers has it; without it
    what goes by a block's number goes by its new one."""
    out = dict(config)
    count = next((int(out[key]) for key in _COUNTS if key in out), 0)
    made_up = {} if whole is None else whole.to_dict()
    if isinstance(made_up.get("layer_types"), list):
        out["layer_types"] = made_up["layer_types"]
        out = {key: value for key, value in out.items() if key not in _RULES}
    step = int(out.get("decoder_sparse_step") or 1)
    if whole is not None and step > 1:  # every so many blocks have experts: say which have none
        dense = set(out.get("mlp_only_layers") or ())
        out |= {"decoder_sparse_step": 1}
        out["mlp_only_layers"] = sorted(dense | {at for at in range(count) if (at + 1) % step})
    for key, value in list(out.items()):
        if key in _COUNTS:
            out[key] = len(kept)
        elif key == "mlp_only_layers":  # numbers of blocks
            out[key] = [kept.index(at) for at in value or () if at in kept]
        elif isinstance(value, list) and len(value) == count and key != "architectures":  # one entry a block
            out[key] = [value[at] for at in kept]
    return out
