"""Networks whose blocks all have one shape, as plain files hold them: what they lose.

The same number of channels, heads and experts is left in every block, and whole blocks may go. There are few such
networks, so what they lose is measured in themselves, as they will be written, and not summed over parts: fewer
channels everywhere at a few shares (between them the curve follows the second order), heads likewise, and the blocks
that lose least one after the other. What these do to each other is seen in a few networks that are chosen as plans are,
on other windows.

Rows stay rows of single units, so bits differ from block to block as on any menu: a loss is told to the rows that bear
it, in proportion to the second order, and the plan sees to it that all have one shape (`choosing.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from torch import Tensor

from secateur.cut.case import Case, Tell
from secateur.cut.shapes.free import CHOICE, TOGETHER, bent, cuts_of, fitted
from secateur.cut.shapes.networks import MERGED, Cut, Networks, rounding_left, windows_of
from secateur.maths.channels import Removal
from secateur.parts.correction import Correction
from secateur.parts.left import count
from secateur.types import Matrix, Unit

#: shares of the blocks' weights that are left in shapes that are cut from a rounded network
LIGHT = (0.9, 0.75, 0.6)
#: shares that all blocks are measured at
SHARES = {"channels": (0.9, 0.75, 0.5, 0.25), "heads": (0.75, 0.5, 0.25), "experts": (0.875, 0.75, 0.5, 0.25)}


@dataclass(frozen=True)
class Shape:
    """What every block has left, by kind of cut (`"channels"`, `"experts merged"`), and how many blocks are gone."""

    left: tuple[Cut, ...] = ()
    gone: int = 0


@dataclass(frozen=True)
class Rounded:
    """The network with its blocks rounded as a probe of the survey: the matrices of a block, and the damage that was
    expected of every unit."""

    cut: Callable[[int], Mapping[Matrix, Tensor]]
    expected: Mapping[str, float]


@dataclass(frozen=True)
class Even:
    """What networks of one shape lose. `parts[kind]` are the parts that are cut alike, with their blocks."""

    units: Sequence[Unit]
    parts: Mapping[str, Sequence[tuple[str, int]]]
    removals: Mapping[str, Removal]
    known: Mapping[Cut, float]  # KL with so many left in every block
    order: tuple[int, ...] = ()  # blocks, as they go
    added: tuple[float, ...] = ()  # KL when each has gone as well
    together: tuple[tuple[Shape, float], ...] = ()
    rounding: Mapping[str, Sequence[float]] = field(default_factory=dict)  # share of it left, by unit and channels left
    expected: Mapping[str, float] = field(default_factory=dict)  # damage of rounding by unit, of a probe
    rounded: tuple[tuple[Shape, float], ...] = ()  # KL of shapes cut from that, the first as it is

    def lost(self, kind: str, left: int) -> float:
        """KL with so many left in every block."""
        points = [(self._second(kind, n), kl) for (name, n), kl in self.known.items() if name == kind]
        return bent(points).kl(self._second(kind, left))

    def share(self, part: str, kind: str, left: int) -> float:
        """How much of that is one part's."""
        return self.removals[part + _merged(kind)].left(left) / self._second(kind, left)

    def blocks(self, how: Correction) -> dict[int, float]:
        """What each block adds when it goes after those before it, as a sum of predictions."""
        sums = [0.0, *map(how.total, self.added)]
        return {block: b - a for block, (a, b) in zip(self.order, pairwise(sums), strict=True)}

    def total(self, shape: Shape, how: Correction) -> float:
        """What a shape loses, part by part and block by block, as a sum of predictions."""
        gone = set(self.order[: shape.gone])
        lost = [value for block, value in self.blocks(how).items() if block in gone]
        for kind, left in shape.left:
            share = math.fsum(self.share(part, kind, left) for part, block in self.parts[kind] if block not in gone)
            lost.append(how.total(self.lost(kind, left)) * share)
        return math.fsum(lost)

    def scale(self, how: Correction) -> tuple[float, float]:
        """By how much that falls short in shapes that plans choose, as a factor, and the relative error left."""
        return fitted([(self.total(shape, how), how.total(kl)) for shape, kl in self.together])

    def scale_rounded(self, how: Correction) -> tuple[float, float]:
        """The same for shapes that are rounded as well: what they lose beside the rounding of what stays."""
        if not self.rounded:
            return self.scale(how)
        (_, plain), *others = self.rounded
        whole, base = math.fsum(self.expected.values()), how.total(plain)
        pairs = [(self.total(shape, how), how.total(kl) - base * self._rounding(shape) / whole) for shape, kl in others]
        return fitted(pairs)

    def _rounding(self, shape: Shape) -> float:
        """The damage of rounding what a shape leaves."""
        gone, left = set(self.order[: shape.gone]), dict(shape.left)
        told = []
        for unit in self.units:
            by = unit.side.by if unit.side is not None else ""
            share = self.rounding[unit.name][left[by]] if by in left and unit.name in self.rounding else 1.0
            told.append(0.0 if unit.block in gone else share * self.expected.get(unit.name, 0.0))
        return math.fsum(told)

    def _second(self, kind: str, left: int) -> float:
        """The second order with so many left in every block."""
        return math.fsum(self.removals[part + _merged(kind)].left(left) for part, _ in self.parts[kind])


def measure(case: Case, factors: Any, work: Path, tell: Tell, rounded: Rounded | None = None) -> Even:
    """Walk windows through the networks of one shape. `factors(unit)` are the survey's, by matrix."""
    alike, (windows, others) = _alike(case), windows_of(case)
    networks = Networks(case, factors, work, [unit for units in alike.values() for unit in units])
    parts = {kind: [(u.side.part, u.block or 0) for u in units if u.side] for kind, units in alike.items()}
    paths = case.stream.blocks
    blocks = range(1, len(paths)) if case.whole_blocks else ()
    alone = networks.alone(windows, {i: [(paths[i], 0)] for i in blocks}, tell) if blocks else {}
    order = tuple(sorted(blocks, key=lambda i: (alone[paths[i], 0], i)))

    def cuts(shape: Shape) -> dict[str, Cut]:
        some = {part: (part + _merged(kind), left) for kind, left in shape.left for part, _ in parts[kind]}
        return some | {paths[i]: (paths[i], 0) for i in order[: shape.gone]}

    counts = sorted({n for n in (2 << e for e in range(16)) if n < len(order)} | ({len(order)} - {0, 1}))
    tried = [Shape((cut,)) for kind, units in alike.items() for cut in _lefts(units[0], kind, SHARES)]
    tried += [Shape(gone=n) for n in counts]
    found = networks.together(windows, {shape: cuts(shape) for shape in tried}, tell) if tried else {}
    known = {shape.left[0]: kl for shape, kl in found.items() if shape.left}
    steps = [alone[paths[i], 0] for i in order]
    added = _added(steps, {1: steps[0], **{n: found[Shape(gone=n)] for n in counts}} if steps else {})
    rounding = rounding_left(case, factors, networks.removals)
    seen = Even(case.units, parts, networks.removals, known, order, added, (), rounding)
    chosen = list(dict.fromkeys(filter(None, (_cheapest(case, alike, seen, share) for share in TOGETHER))))
    more = networks.together(others, {shape: cuts(shape) for shape in chosen}, tell) if chosen else {}
    seen = replace(seen, together=tuple(more.items()))
    if rounded is None or not chosen:
        return seen
    light = dict.fromkeys([Shape(), *filter(None, (_cheapest(case, alike, seen, share) for share in LIGHT))])
    more = networks.together(others, {shape: cuts(shape) for shape in light}, tell, rounded.cut)
    return replace(seen, expected=rounded.expected, rounded=tuple(more.items()))


def _alike(case: Case) -> dict[str, list[Unit]]:
    """By kind of cut: the units that mix what all parts of a kind may lose, where all have as many to lose."""
    out: dict[str, list[Unit]] = {}
    for by in (by for by in SHARES if by in case.kinds):
        mixers = [unit for unit in case.units if unit.side is not None and unit.side.by == by and unit.side.mixes]
        if len({count(unit) for unit in mixers}) == 1 and count(mixers[0]):
            out |= dict.fromkeys((by, by + MERGED) if by == "experts" else (by,), mixers)
    return out


def _merged(kind: str) -> str:
    return MERGED if kind.endswith(MERGED) else ""


def _lefts(unit: Unit, kind: str, shares: Mapping[str, Sequence[float]]) -> list[Cut]:
    """How many of a kind may be left at these shares, where some are gone."""
    by = kind.removesuffix(MERGED)
    return [
        (kind, left) for curve, left in cuts_of(unit, {by: shares[by]}) if curve.endswith(MERGED) == bool(_merged(kind))
    ]


def _added(alone: Sequence[float], known: Mapping[int, float]) -> tuple[float, ...]:
    """KL when each block has gone as well: measured after some of them, between them as they lose by themselves."""
    out, at, kl = [], 0, 0.0
    for n in sorted(known):
        if known[n] > kl:
            steps = alone[at:n]
            rates = [math.fsum(steps[: i + 1]) / math.fsum(steps) for i in range(len(steps))]
            out += [kl + (known[n] - kl) * rate for rate in rates]
            at, kl = n, known[n]
    return tuple(out)


def _cheapest(case: Case, alike: Mapping[str, Sequence[Unit]], seen: Even, share: float) -> Shape | None:
    """The shape that loses least of those that leave no more than this share of the blocks' weights that could go."""
    blocks, by = len(case.stream.blocks), [*dict.fromkeys(kind.removesuffix(MERGED) for kind in alike)]
    weigh = {one: sum(u.size for u in case.units if u.side and u.side.by == one) for one in by}
    rest = sum(u.size for u in case.units if u.block is not None) - sum(weigh.values()) if seen.order else 0
    choices: list[list[Cut | None]] = []
    for one in by:
        kinds = [kind for kind in alike if kind.removesuffix(MERGED) == one]
        choices.append(
            [None, *(cut for kind in kinds for cut in _lefts(alike[kind][0], kind, dict.fromkeys(SHARES, CHOICE)))]
        )
    best: tuple[float, Shape | None] = math.inf, None
    for gone, some in product(range(len(seen.added) + 1), product(*choices)):
        stays = [cut[1] / count(alike[cut[0]][0]) if cut else 1.0 for cut in some]
        size = rest + math.fsum(weigh[one] * left for one, left in zip(by, stays, strict=True))
        if size * (1 - gone / blocks) <= share * (rest + sum(weigh.values())):
            shape = Shape(tuple(cut for cut in some if cut), gone)
            best = min(best, (seen.total(shape, Correction()), shape), key=lambda one: one[0])
    return best[1]
