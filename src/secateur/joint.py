"""The menu of shapes and grids together: one row for both sides of an attention or an MLP, and every way to cut it.

For each number of channels (KV heads) that may be left, what makes them and what mixes them each have a grid, or none.
Of all pairs of grids those are offered that no other pair beats in bytes, in payload and in damage: so the best plan of
grids alone is on this menu too, and the best plan of this menu is never worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.case import Case, shapes_of
from secateur.parts.correction import Correction
from secateur.parts.damage import Row
from secateur.parts.edits import text
from secateur.parts.edits.both import Both
from secateur.parts.edits.channels import SHARES, Channels
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.heads import Heads
from secateur.parts.edits.keep import Keep
from secateur.parts.left import count
from secateur.price import price
from secateur.shapes import ERROR, Measured
from secateur.types import Edit, Unit


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


def offers_of(
    case: Case, units: Sequence[Unit], singles: Singles, seen: Measured, how: Correction, over: str
) -> list[Offer]:
    """Everything that a row of the menu can have."""
    first = units[0]
    if first.side is None:
        edits = [e for e in range(len(singles.edits)) if all(singles.can[unit.name][e] for unit in units)]
        return [_plain(case, units, singles, e, over) for e in edits]
    makers = [unit for unit in units if unit.side and not unit.side.mixes]
    mixers = [unit for unit in units if unit.side and unit.side.mixes]
    free = len(makers) == len(mixers) and not any(unit.name in singles.kept for unit in units)
    scale, spread = seen.scale(how)
    found: list[Offer] = []
    for shape in _shapes(case, first) if free else [None]:
        lost, error = 0.0, 0.0
        if shape is not None:
            each = [how.total(seen.lost(unit.side.part, shape.left(count(unit)))) for unit in mixers if unit.side]
            lost = scale * math.fsum(each)
            error = math.hypot(ERROR * scale * math.hypot(*each), spread * lost)
        sides = [_side(case, some, singles, shape, over) for some in (makers, mixers)]
        found += _pairs(sides[0], sides[1], shape, lost, error, same=shapes_of(case.format) == "same")
    able = free and shapes_of(case.format) == "any" and "drop" in case.kinds
    if able and not any(case.refuses(unit, Drop()) for unit in units):
        each = [how.total(seen.alone[unit.side.part, 0]) for unit in mixers if unit.side]
        lost = scale * math.fsum(each)
        none = dict.fromkeys(case.resources, 0.0)
        found.append(Offer(Drop(), none, lost, math.hypot(ERROR * lost, spread * lost)))
    return found


def _shapes(case: Case, unit: Unit) -> list[Channels | Heads | None]:
    """The shapes that a row can take: its own, and smaller ones, each once."""
    assert unit.side is not None
    n, by = count(unit), unit.side.by
    if by not in case.kinds or not n:
        return [None]
    shares = [k / n for k in range(n - 1, 0, -1)] if by == "heads" else SHARES
    make = Heads if by == "heads" else Channels
    lefts = {make(round(share, 4)).left(n): make(round(share, 4)) for share in reversed(shares)}
    return [None, *(shape for left, shape in sorted(lefts.items(), reverse=True) if left < n)]


@dataclass(frozen=True)
class _Side:
    """What one side of a row can have at one shape: edits, costs [edits, resources], damages, errors."""

    edits: list[Edit]
    cost: np.ndarray
    damage: np.ndarray
    error: np.ndarray
    resources: tuple[str, ...]


def _side(case: Case, units: Sequence[Unit], singles: Singles, shape: Any, over: str) -> _Side:
    edits, cost, damage, error = [], [], [], []
    for e, edit in enumerate(singles.edits):
        whole = edit if shape is None else type(shape)(shape.keep, *([] if isinstance(edit, Keep) else [text(edit)]))
        able = all(singles.can[unit.name][e] for unit in units)
        if not able or any(case.refuses(unit, whole) for unit in units):
            continue
        prices = [price(case, unit, whole, over) for unit in units]
        share = 1.0 if shape is None else shape.left(count(units[0])) / count(units[0])
        edits.append(edit)
        cost.append([float(sum(one[name] for one in prices)) for name in case.resources])
        damage.append(share * math.fsum(singles.rows[unit.name].damage[e] for unit in units))
        error.append(share * math.hypot(*(singles.rows[unit.name].error[e] for unit in units)))
    return _Side(edits, np.array(cost), np.array(damage), np.array(error), case.resources)


def _pairs(makers: _Side, mixers: _Side, shape: Any, lost: float, error: float, same: bool) -> list[Offer]:
    """The pairs of grids that no other beats; `same`: only those that are alike."""
    if not makers.edits or not mixers.edits:
        return []
    i, j = (x.flatten() for x in np.meshgrid(range(len(makers.edits)), range(len(mixers.edits)), indexing="ij"))
    if same:
        alike = np.array([makers.edits[a] == mixers.edits[b] for a, b in zip(i, j, strict=True)])
        i, j = i[alike], j[alike]
    cost, damage = makers.cost[i] + mixers.cost[j], makers.damage[i] + mixers.damage[j]
    best = _undominated(np.c_[cost[:, :2], damage])
    return [
        Offer(
            _named(shape, makers.edits[i[k]], mixers.edits[j[k]]),
            dict(zip(makers.resources, cost[k].tolist(), strict=True)),
            lost + float(damage[k]),
            math.hypot(error, makers.error[i[k]], mixers.error[j[k]]),
        )
        for k in best
    ]


def _named(shape: Any, then: Edit, last: Edit) -> Edit:
    """One edit that says the shape and both grids."""
    words = ["" if isinstance(edit, Keep) else text(edit) for edit in (then, last)]
    if shape is None:
        return then if then == last else Both(words[0] or "keep()", words[1] or "keep()")
    return type(shape)(shape.keep, words[0], "" if then == last else words[1] or "keep()")


def _undominated(x: np.ndarray) -> list[int]:
    """Rows than which no other is as small everywhere and smaller somewhere; of twins the first."""
    order = np.lexsort(x.T[::-1])
    best: list[int] = []
    for k in order.tolist():
        if not best or not (x[best] <= x[k]).all(1).any():
            best.append(k)
    return sorted(best)


def _plain(case: Case, units: Sequence[Unit], singles: Singles, e: int, over: str) -> Offer:
    """A row without shape, as on any menu."""
    prices = [price(case, unit, singles.edits[e], over) for unit in units]
    return Offer(
        singles.edits[e],
        {name: float(sum(one[name] for one in prices)) for name in case.resources},
        math.fsum(singles.rows[unit.name].damage[e] for unit in units),
        math.hypot(*(singles.rows[unit.name].error[e] for unit in units)),
    )
