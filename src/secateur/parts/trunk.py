"""What narrower trunks leave of a network's tensors: which channels, in which order, and units with fewer of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from secateur.maths.channels import Removal
from secateur.model.matrix import place
from secateur.model.trunk import Trunk
from secateur.parts.left import columns
from secateur.types import Matrix, Unit


def thinned(unit: Unit, trunks: Sequence[Trunk], widths: Mapping[str, int]) -> Unit:
    """A unit's matrices with the rows and columns that so many channels of each trunk leave them."""
    if not widths:
        return unit
    return replace(unit, matrices=tuple(_thinned(m, trunks, widths) for m in unit.matrices))


def _thinned(matrix: Matrix, trunks: Sequence[Trunk], widths: Mapping[str, int]) -> Matrix:
    path, rows, cols, stored = place(matrix).module, matrix.rows, matrix.cols, list(matrix.stored)
    for trunk in trunks:
        n = widths.get(trunk.name, trunk.width)
        if path in trunk.along:
            rows = n
            stored[:1] = [n] if stored else []
        if path in trunk.takers:
            cols = cols // trunk.width * n
            stored[1:2] = [n] if stored else []
    return replace(matrix, rows=rows, cols=cols, stored=tuple(stored))


def length(name: str, size: int, trunks: Sequence[Trunk], widths: Mapping[str, int]) -> int:
    """How many numbers are left of a stored vector of so many."""
    path = name.rpartition(".")[0]
    return next((widths.get(t.name, size) for t in trunks if path in t.along), size)


def fits(trunks: Sequence[Trunk], widths: Mapping[str, int]) -> dict[str, int]:
    """These widths, each at least that of the trunk inside: a channel that a shortcut brings must have its place."""
    out: dict[str, int] = {}
    for trunk in trunks:
        out[trunk.name] = max(widths.get(trunk.name, trunk.width), out.get(trunk.inner, 0))
    return out


def chosen(trunks: Sequence[Trunk], removals: Mapping[str, Removal], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """The channels that stay of each trunk, those that stay the longest, in the order in which they will lie.

    Where a shortcut brings another trunk's channels they stay and lie in the middle, in that one's order; what has lost
    its shortcut joins those beside them, half in front, half behind, as the network counts them.
    """
    out: dict[str, Tensor] = {}
    width = {trunk.name: trunk.width for trunk in trunks}
    for trunk in trunks:
        order, n = removals[trunk.name].order, widths.get(trunk.name, trunk.width)
        if not trunk.inner:
            out[trunk.name] = order[len(order) - n :].sort().values
            continue
        middle = out[trunk.inner] + (trunk.width - width[trunk.inner]) // 2
        beside = order[~torch.isin(order, middle)]
        more = n - len(middle)
        beside = beside[len(beside) - more :].sort().values
        out[trunk.name] = torch.cat([beside[: more // 2], middle, beside[more // 2 :]])
    return out


def stay(matrix: Matrix, trunks: Sequence[Trunk], kept: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """Rows and columns of a matrix that stay, in their new order; None for all as they are."""
    path = place(matrix).module
    rows = next((kept[t.name] for t in trunks if path in t.along and t.name in kept), None)
    mixed = next((t for t in trunks if path in t.takers and t.name in kept), None)
    return rows, None if mixed is None else columns(kept[mixed.name], matrix.cols // mixed.width)


def vector(name: str, value: Tensor, trunks: Sequence[Trunk], kept: Mapping[str, Tensor]) -> Tensor:
    """What stays of a stored vector that goes with a trunk's channels; others as they are."""
    path = name.rpartition(".")[0]
    found = next((kept[t.name] for t in trunks if path in t.along and t.name in kept), None)
    return value if found is None else value[found]
