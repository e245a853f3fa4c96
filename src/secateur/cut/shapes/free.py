"""What smaller shapes lose where blocks may differ: fewer channels, heads and experts, and parts left out.

What is lost is measured: each attention and MLP with some of its KV heads, channels or experts, and without it, in a
network that is otherwise uncut, on a few windows of the text for correction.
Between what was measured the curve follows the second order. What parts do to each other, and what it means to choose
by measurements that have errors, is seen in a few networks that are narrow everywhere, where it seems to cost least.

Sums of rounding errors are too low, and the survey's correction sets them right. So that the same correction serves
both, losses that were measured go on the menu as the sums that it would make them of (`Correction.total`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from secateur.cut.case import Case, Tell
from secateur.cut.shapes.networks import MERGED, Cut, Networks, rounding_left, windows_of
from secateur.maths import knapsack
from secateur.maths.channels import Removal
from secateur.parts.correction import Correction
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.heads import Heads
from secateur.parts.left import count
from secateur.types import Unit

#: shares at which each part is measured, beside without it
ALONE = {"channels": (0.75, 0.4), "heads": (0.5,), "experts": (0.875, 0.75, 0.5)}
#: shares of the parts' weights that are left in the networks that are narrow everywhere
TOGETHER = (0.8, 0.6, 0.4)
#: shares that those networks may choose from
CHOICE = (0.9, 0.75, 0.5, 0.25, 0.1)
#: relative error of a part's curve: one standard error of a KL on so few windows, and what is between the points
ERROR = 0.15


@dataclass(frozen=True)
class Measured:
    """What every part loses: second order and measured, and how single losses add up."""

    removals: Mapping[str, Removal]  # by part (and how), where it can lose something of itself
    alone: Mapping[Cut, float]  # KL, nats per token
    together: Sequence[tuple[Sequence[Cut], float]]  # what is cut in a network, and its KL
    rounding: Mapping[str, Sequence[float]] = field(default_factory=dict)  # share of it left, by unit and channels left

    def lost(self, part: str, left: int) -> float:
        """KL when a part has `left` of its channels or heads."""
        if part not in self.removals:
            return self.alone[part, 0]
        known = self.removals[part]
        mine = ((n, kl) for (name, n), kl in self.alone.items() if name == part)
        return bent([(known.left(n), kl) for n, kl in mine]).kl(known.left(left))

    def scale(self, how: Correction) -> tuple[float, float]:
        """By how much losses on the menu (`how.total` of each) fall short when they come together, as a factor, and the
        relative error that this leaves."""
        alone = ([how.total(self.lost(*cut)) for cut in cuts] for cuts, _ in self.together)
        return fitted([(math.fsum(some), how.total(kl)) for some, (_, kl) in zip(alone, self.together, strict=True)])


def bent(points: Iterable[tuple[float, float]]) -> Correction:
    """The curve of the second order bent through what was measured: pairs of both, in any order."""
    kept: list[tuple[float, float]] = []
    for x, kl in sorted(points):
        if x > 0 and kl > 0 and (not kept or (x > kept[-1][0] and kl > kept[-1][1])):
            kept.append((x, kl))
    return Correction(tuple(x for x, _ in kept), tuple(y for _, y in kept))


def fitted(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """By which factor sums, the first of each pair, fall short of what was found, and the relative error left."""
    logs = [math.log(found / expected) for expected, found in pairs if expected > 0 and found > 0]
    if not logs:
        return 1.0, 0.5
    mean = math.fsum(logs) / len(logs)
    return math.exp(mean), max(0.1, math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / len(logs)))


def measure(case: Case, factors: Any, work: Path, tell: Tell) -> Measured:
    """Walk the check windows through the network and through all that differ from it in one part, and then others
    through a few that are narrow everywhere. `factors(unit)` are the survey's, by matrix."""
    mixers, (windows, others) = _mixers(case), windows_of(case)
    cuts: dict[int, list[Cut]] = {}
    for unit in mixers:
        cuts.setdefault(unit.block or 0, []).extend(_alone(unit))
    networks = Networks(case, factors, work, mixers)
    alone = networks.alone(windows, cuts, tell)
    seen = Measured(networks.removals, alone, (), rounding_left(case, factors, networks.removals))
    wide = {str(share): _cheapest(_options(case, seen), share) for share in TOGETHER}
    wide = {name: cut for name, cut in wide.items() if cut}
    found = networks.together(others, wide, tell) if wide else {}
    return replace(seen, together=[(list(cut.values()), found[name]) for name, cut in wide.items()])


def curve_of(unit: Unit, edit: Any) -> str:
    """The curve along which a part loses what an edit takes away."""
    return unit.side.part + (MERGED if getattr(edit, "merge", False) else "")  # type: ignore[union-attr]


def _options(case: Case, seen: Measured) -> dict[str, list[tuple[Cut | None, float, float]]]:
    """By part: how it may be cut, the weights that this takes away, and what is lost."""
    out: dict[str, list[tuple[Cut | None, float, float]]] = {}
    for unit in _mixers(case):
        assert unit.side is not None
        size = sum(one.size for one in case.units if one.side is not None and one.side.part == unit.side.part)
        n, cuts = count(unit), cuts_of(unit, dict.fromkeys(ALONE, CHOICE))
        mine = [(cut, size * (1 - cut[1] / n), seen.lost(*cut)) for cut in cuts]
        out[unit.side.part] = [(None, 0.0, 0.0), *mine]
    return out


def _cheapest(options: Mapping[str, Sequence[tuple[Cut | None, float, float]]], share: float) -> dict[str, Cut]:
    """How each part is cut that loses something, so that no more than this share of the weights stays of all that
    could go, at least cost."""
    if not options:
        return {}
    wide = max(len(one) for one in options.values())

    def table(at: int) -> np.ndarray:
        return np.array([[o[at] for o in one] + [np.inf] * (wide - len(one)) for one in options.values()])

    saved, lost = table(1), table(2)
    most = np.where(np.isfinite(saved), saved, 0.0).max(1, keepdims=True)
    stays = np.where(np.isfinite(saved), most - saved, np.inf)
    found = knapsack.lagrange([stays], [share * float(most.sum())], lost).edits.tolist()
    cuts = {part: one[e][0] for (part, one), e in zip(options.items(), found, strict=True)}
    return {part: cut for part, cut in cuts.items() if cut is not None}


def _mixers(case: Case) -> list[Unit]:
    """What mixes the channels of parts that somebody wants cut."""
    wanted = {*case.kinds}
    return [
        unit
        for unit in case.units
        if unit.side is not None and unit.side.mixes and (unit.side.by in wanted or "drop" in wanted)
    ]


def cuts_of(unit: Unit, shares: Mapping[str, Sequence[float]]) -> list[Cut]:
    """How a part may be cut at these shares, where some of it is gone."""
    assert unit.side is not None
    n, make = count(unit), {"channels": Channels, "heads": Heads, "experts": Experts}.get(unit.side.by)
    if make is None or not n:
        return []
    found = dict.fromkeys(make(share).left(n) for share in shares.get(unit.side.by, ()))
    curves = [unit.side.part, *([unit.side.part + MERGED] if unit.side.by == "experts" else [])]
    return [(curve, left) for left in found if unit.side.least <= left < n for curve in curves]


def _alone(unit: Unit) -> list[Cut]:
    """How each part is cut by itself: some of it gone, and all of it, but for experts."""
    assert unit.side is not None
    return [*cuts_of(unit, ALONE), *([(unit.side.part, 0)] if unit.side.by != "experts" else [])]
