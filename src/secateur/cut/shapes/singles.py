"""What a row of a menu can have by itself: edits with price and damage, and the shapes that it can be brought to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.cut.case import Case
from secateur.cut.price import price
from secateur.parts.damage import Row
from secateur.parts.edits.channels import SHARES, Channels
from secateur.parts.edits.experts import SHARES as EIGHTHS
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.heads import Heads
from secateur.parts.left import count
from secateur.types import Edit, Unit

#: how few single edits are too few to choose from at smaller shapes
FEW = 6
#: where FLOPs, the cache and seconds stand among the resources of language models
FLOPS, KV, SECONDS = 2, 3, 4
#: how much of what is to be small bytes are, beside another resource
MIXES = (0.75, 0.5, 0.25, 0.0)


@dataclass(frozen=True)
class Offer:
    """One edit of one row: what it costs, and the damage with its error."""

    edit: Edit
    cost: Mapping[str, float]
    damage: float
    error: float


@dataclass(frozen=True)
class Singles:
    """What every unit can have by itself, and what that damages."""

    edits: Sequence[Edit]
    can: Mapping[str, Sequence[bool]]
    rows: Mapping[str, Row]
    kept: frozenset[str]  # units that the user wants as they are

    @classmethod
    def of(
        cls,
        case: Case,
        edits: Sequence[Edit],
        can: Sequence[Sequence[bool]],
        rows: Mapping[str, Row],
        skipped: Sequence[Mapping[str, str]],
    ) -> Singles:
        """From a menu of single units."""
        able = {unit.name: one for units, one in zip(case.rows.values(), can, strict=True) for unit in units}
        wanted = {one["unit"] for one in skipped if one["reason"].startswith("kept by --keep")}
        kept = {unit.name for name, units in case.rows.items() if name in wanted for unit in units}
        return cls(edits, able, rows, frozenset(kept))


def shapes_for(case: Case, unit: Unit) -> list[Channels | Heads | Experts | None]:
    """The shapes that a row can take: its own, and smaller ones, each once."""
    assert unit.side is not None
    n, by = count(unit), unit.side.by
    if by not in case.kinds or not n:
        return [None]
    if by == "experts":
        lefts = dict.fromkeys(Experts(keep).left(n) for keep in EIGHTHS)
        keeps = [round(left / n, 4) for left in lefts if unit.side.least <= left < n]
        return [None, *(Experts(keep, merge=merge) for keep in keeps for merge in (False, True))]
    shares = [k / n for k in range(n - 1, 0, -1)] if by == "heads" else SHARES
    make = Heads if by == "heads" else Channels
    lefts = {make(round(share, 4)).left(n): make(round(share, 4)) for share in reversed(shares)}
    return [None, *(shape for left, shape in sorted(lefts.items(), reverse=True) if left < n)]


def ways(cost: np.ndarray) -> list[np.ndarray]:
    """What choices [n, resources] may be wanted small in, each [n, sizes]: bytes and payload, which differ by headers;
    and where choices differ in FLOPs, in the cache or in seconds, sums of these and of bytes, each as a share of the
    largest."""
    found = [cost[:, :2]]
    for at in (FLOPS, KV, SECONDS):
        other = cost[:, at : at + 1]
        if other.size and np.ptp(other) > 1e-9 * other.max():
            found += [mix * _scaled(cost[:, :1]) + (1 - mix) * _scaled(other) for mix in MIXES]
    return found


def _scaled(size: np.ndarray) -> np.ndarray:
    return size / max(float(size.max()), 1e-300)


def undominated(cost: np.ndarray, damage: np.ndarray) -> list[int]:
    """Choices [n, resources] than which none that is smaller in some way damages less."""
    return sorted({k for way in ways(cost) for k in best_of(way, damage)})


def best_of(sizes: np.ndarray, damage: np.ndarray) -> set[int]:
    """Choices than which none that is smaller in one of `sizes` [n, sizes] damages less."""
    found: set[int] = set()
    for size in sizes.T:
        order = np.lexsort((damage, size))
        least = np.r_[np.inf, np.minimum.accumulate(damage[order])[:-1]]
        found.update(order[damage[order] < least].tolist())
    return found


def plain(case: Case, units: Sequence[Unit], singles: Singles, e: int, over: str) -> Offer:
    """A row without shape, as on any menu."""
    prices = [price(case, unit, singles.edits[e], over) for unit in units]
    return Offer(
        singles.edits[e],
        {name: float(sum(one[name] for one in prices)) for name in case.resources},
        math.fsum(singles.rows[unit.name].damage[e] for unit in units),
        math.hypot(*(singles.rows[unit.name].error[e] for unit in units)),
    )
