"""The menu of shapes and grids together: one row for all layers of an attention or an MLP, and every way to cut it.

For each number of channels (KV heads) that may be left, every layer has a grid of its own, or none. Of all combinations
those are offered that no other beats in size and in damage, or, where these are hundreds, those on the lower hull and
some between: so the best plan of grids alone is on this menu too, to within a step of one row. Size is bytes; where low
ranks change what is computed as well, it is also FLOPs, and sums of both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from secateur.cut.case import Case
from secateur.cut.price import price
from secateur.cut.shapes.free import ERROR, Measured, curve_of
from secateur.cut.shapes.singles import FEW, Offer, Singles, best_of, plain, shapes_for, undominated, ways
from secateur.parts.correction import Correction
from secateur.parts.edits import text
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.each import Each
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.keep import Keep
from secateur.parts.left import count
from secateur.types import Edit, Unit

#: how many combinations all rows have between them at their full shape, and how many times fewer at each smaller one
MOST, FEWER = 8192, 4


def offers_of(
    case: Case, units: Sequence[Unit], singles: Singles, seen: Measured, how: Correction, over: str
) -> list[Offer]:
    """Everything that a row of the menu can have."""
    if units[0].side is None:
        edits = [e for e in range(len(singles.edits)) if all(singles.can[unit.name][e] for unit in units)]
        return [plain(case, units, singles, e, over) for e in edits]
    layers: dict[int, list[Unit]] = {}
    for unit in units:
        layers.setdefault(unit.side.at if unit.side else 0, []).append(unit)
    mixers = layers.get(-1, [])
    whole = mixers and len(layers) > 1 and len({len(some) for some in layers.values()}) == 1
    free = whole and not any(unit.name in singles.kept for unit in units)
    scale, spread = seen.scale(how)
    found: list[Offer] = []
    most = min(max(MOST // len(case.rows), 32), 512)
    only: list[Sequence[int]] = [range(len(singles.edits))] * len(layers)
    for shape in shapes_for(case, units[0]) if free else [None]:
        lost, error = 0.0, 0.0
        if shape is not None:
            each = [how.total(seen.lost(curve_of(unit, shape), shape.left(count(unit)))) for unit in mixers]
            lost = scale * math.fsum(each)
            error = math.hypot(ERROR * scale * math.hypot(*each), spread * lost)
        sides = [
            _side(case, some, singles, seen, shape, over, es) for some, es in zip(layers.values(), only, strict=True)
        ]
        if shape is None:  # smaller shapes are offered with what is worth it at the full one
            only = [side.worth() for side in sides]
        found += _together(sides, shape, lost, error, most if shape is None else most // FEWER, case.resources)
    able = free and "drop" in case.kinds
    if able and not any(case.refuses(unit, Drop()) for unit in units):
        lost = scale * math.fsum(how.total(seen.alone[unit.side.part, 0]) for unit in mixers if unit.side)
        none = dict.fromkeys(case.resources, 0.0)
        found.append(Offer(Drop(), none, lost, math.hypot(ERROR * lost, spread * lost)))
    return found


@dataclass(frozen=True)
class _Side:
    """What one layer of a row can have at one shape, or several layers together:
    edits, by their place among the singles, [n, layers]; costs [n, resources], damages [n] and squared errors [n]."""

    all: Sequence[Edit]
    edits: np.ndarray
    cost: np.ndarray
    damage: np.ndarray
    square: np.ndarray

    def worth(self) -> list[int]:
        """Edits that no other beats; all, where those are too few to choose from at other shapes."""
        best = undominated(self.cost, self.damage)
        return [int(self.edits[k, 0]) for k in (best if len(best) > FEW else range(len(self.edits)))]

    def taken(self, some: Sequence[int]) -> _Side:
        return _Side(self.all, self.edits[some], self.cost[some], self.damage[some], self.square[some])


def _side(
    case: Case, units: Sequence[Unit], singles: Singles, seen: Measured, shape: Any, over: str, only: Sequence[int]
) -> _Side:
    edits, cost, damage, square = [], [], [], []
    # of experts a token meets as many as before, so all that rounding does to them stays
    some = None if isinstance(shape, Experts) else shape
    shares = {u.name: 1.0 if some is None else seen.rounding[u.name][some.left(count(u))] for u in units}
    for e in only:
        edit = singles.edits[e]
        whole = edit if shape is None else replace(shape, then="" if isinstance(edit, Keep) else text(edit))
        able = all(singles.can[unit.name][e] for unit in units)
        if not able or any(case.refuses(unit, whole) for unit in units):
            continue
        prices = [price(case, unit, whole, over) for unit in units]
        edits.append([e])
        cost.append([float(sum(one[name] for one in prices)) for name in case.resources])
        damage.append(math.fsum(shares[unit.name] * singles.rows[unit.name].damage[e] for unit in units))
        square.append(math.fsum((shares[unit.name] * singles.rows[unit.name].error[e]) ** 2 for unit in units))
    shaped = np.array(cost).reshape(len(edits), len(case.resources))
    return _Side(singles.edits, np.array(edits, int).reshape(-1, 1), shaped, np.array(damage), np.array(square))


def _together(
    sides: Sequence[_Side], shape: Any, lost: float, error: float, most: int, names: Sequence[str]
) -> list[Offer]:
    """What the layers of a row can have together, about `most` choices."""
    first, *others = sides
    for one in others:
        i, j = (x.flatten() for x in np.meshgrid(range(len(first.edits)), range(len(one.edits)), indexing="ij"))
        first = _Side(
            first.all,
            np.c_[first.edits[i], one.edits[j]],
            first.cost[i] + one.cost[j],
            first.damage[i] + one.damage[j],
            first.square[i] + one.square[j],
        )
        first = first.taken(_thinned(first.cost, first.damage, most if one is sides[-1] else 4 * most))
    return [
        Offer(
            _named(shape, [first.all[e] for e in first.edits[k]]),
            {name: float(value) for name, value in zip(names, first.cost[k], strict=True)},
            lost + float(first.damage[k]),
            math.hypot(error, math.sqrt(first.square[k])),
        )
        for k in range(len(first.edits))
    ]


def _named(shape: Any, edits: Sequence[Edit]) -> Edit:
    """One edit that says the shape and what every layer has."""
    alike = len(set(edits)) == 1
    then = "" if alike and isinstance(edits[0], Keep) else "; ".join(map(text, edits[:1] if alike else edits))
    if shape is None:
        return edits[0] if alike else Each(then)
    return replace(shape, then=then)


def _thinned(cost: np.ndarray, damage: np.ndarray, most: int) -> list[int]:
    """Choices that no other beats in size and damage, about `most`: half of them by bytes alone where choices differ in
    FLOPs or seconds too."""
    by_bytes, *mixed = ways(cost)
    found = _along(by_bytes, damage, most // 2 if mixed else most)
    for way in mixed:
        found |= _along(way, damage, max(most // 2 // len(mixed), 2))
    return sorted(found)


def _along(sizes: np.ndarray, damage: np.ndarray, most: int) -> set[int]:
    """Choices that no other beats; where they are more than `most`, those on the lower hull of size and damage, and
    others evenly between."""
    best = np.array(sorted(best_of(sizes, damage)), int)
    if len(best) <= most:
        return set(best.tolist())
    size = sizes[:, 0]
    best = best[np.lexsort((damage[best], size[best]))]
    hull: list[int] = []
    for k in best.tolist():
        while len(hull) > 1 and _above(size, damage, hull[-2], hull[-1], k):
            hull.pop()
        hull.append(k)
    between = best[np.linspace(0, len(best) - 1, max(most - len(hull), 2)).round().astype(int)]
    return {*hull, *between.tolist()}


def _above(x: np.ndarray, y: np.ndarray, a: int, b: int, c: int) -> bool:
    """Whether point b lies on or above the line from a to c."""
    return bool((y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a]))
