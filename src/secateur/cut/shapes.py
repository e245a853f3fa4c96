"""Smaller shapes on a language model's menu: fewer channels, heads and experts, and parts left out.

What is lost is measured: each attention and MLP with some of its KV heads, channels or experts, and without it, in a
network that is otherwise uncut, on a few windows of the text for correction. One walk over the blocks does all of it: a
network that differs in block i is the plain one up to there, so its states are born at block i and walk on with all
others.
Between what was measured the curve follows the second order. What parts do to each other, and what it means to choose
by measurements that have errors, is seen in a few networks that are narrow everywhere, where it seems to cost least.

Sums of rounding errors are too low, and the survey's correction sets them right. So that the same correction serves
both, losses that were measured go on the menu as the sums that it would make them of (`Correction.total`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.cut.case import Case, Tell
from secateur.maths import knapsack
from secateur.maths.channels import Removal
from secateur.measure.compare import Comparison, sums
from secateur.model.parked import States, parked
from secateur.parts.correction import Correction
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.heads import Heads
from secateur.parts.knives import Knife, OfBlock, OfChannels, OfExperts
from secateur.parts.left import count
from secateur.types import Unit

#: shares at which each part is measured, beside without it
ALONE = {"channels": (0.75, 0.4), "heads": (0.5,), "experts": (0.75, 0.5)}
#: shares of the parts' weights that are left in the networks that are narrow everywhere
TOGETHER = (0.8, 0.6, 0.4)
#: shares that those networks may choose from
CHOICE = (0.9, 0.75, 0.5, 0.25, 0.1)
#: windows that are measured on, at most; the networks that are narrow everywhere on others
WINDOWS = 8
#: relative error of a part's curve: one standard error of a KL on so few windows, and what is between the points
ERROR = 0.15

#: a part with so many of its channels, heads or experts left, 0: without it; the name says if others were merged
Cut = tuple[str, int]
MERGED = " merged"


@dataclass(frozen=True)
class Measured:
    """What every part loses: second order and measured, and how single losses add up."""

    removals: Mapping[str, Removal]  # by part (and how), where it can lose something of itself
    alone: Mapping[Cut, float]  # KL, nats per token
    together: Sequence[tuple[Sequence[Cut], float]]  # what is cut in a network, and its KL

    def lost(self, part: str, left: int) -> float:
        """KL when a part has `left` of its channels or heads."""
        if part not in self.removals:
            return self.alone[part, 0]
        known = self.removals[part]
        points: list[tuple[float, float]] = []
        for (name, n), kl in sorted(self.alone.items(), key=lambda one: -one[0][1]):
            x = known.left(n)
            if name == part and x > 0 and kl > 0 and (not points or (x > points[-1][0] and kl > points[-1][1])):
                points.append((x, kl))
        return Correction(tuple(x for x, _ in points), tuple(y for _, y in points)).kl(known.left(left))

    def scale(self, how: Correction) -> tuple[float, float]:
        """By how much losses on the menu (`how.total` of each) fall short when they come together, as a factor, and the
        relative error that this leaves."""
        logs = []
        for cuts, kl in self.together:
            alone = math.fsum(how.total(self.lost(*cut)) for cut in cuts)
            if kl > 0 and alone > 0:
                logs.append(math.log(how.total(kl) / alone))
        if not logs:
            return 1.0, 0.5
        mean = math.fsum(logs) / len(logs)
        return math.exp(mean), max(0.1, math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / len(logs)))


def measure(case: Case, factors: Any, work: Path, tell: Tell) -> Measured:
    """Walk the check windows through the network and through all that differ from it in one part, and then others
    through a few that are narrow everywhere. `factors(unit)` are the survey's, by matrix."""
    windows = case.check if len(case.check) else case.calib
    walk = _Walk(case, factors, work)
    alone = walk(windows[:WINDOWS], {}, tell)
    seen = Measured(walk.removals, alone, ())
    cuts = {str(share): _cheapest(_options(case, seen), share) for share in TOGETHER}
    if not any(cuts.values()):
        return seen
    others = windows[WINDOWS : 2 * WINDOWS] if len(windows) > WINDOWS else windows
    found = walk(others, cuts, tell)
    return replace(seen, together=[(list(cut.values()), found[name]) for name, cut in cuts.items() if cut])


def curve_of(unit: Unit, edit: Any) -> str:
    """The curve along which a part loses what an edit takes away."""
    return unit.side.part + (MERGED if getattr(edit, "merge", False) else "")  # type: ignore[union-attr]


def _options(case: Case, seen: Measured) -> dict[str, list[tuple[Cut | None, float, float]]]:
    """By part: how it may be cut, the weights that this takes away, and what is lost."""
    out: dict[str, list[tuple[Cut | None, float, float]]] = {}
    for unit in _mixers(case):
        assert unit.side is not None
        size = sum(one.size for one in case.units if one.side is not None and one.side.part == unit.side.part)
        n, cuts = count(unit), _cuts(unit, dict.fromkeys(ALONE, CHOICE))
        mine = [(cut, size * (1 - cut[1] / n), seen.lost(*cut)) for cut in cuts]
        if unit.side.by == "block" and unit.block:
            mine = [((unit.side.part, 0), float(size), seen.alone[unit.side.part, 0])]
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


def _cuts(unit: Unit, shares: Mapping[str, Sequence[float]]) -> list[Cut]:
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
    return [*_cuts(unit, ALONE), *([(unit.side.part, 0)] if unit.side.by != "experts" else [])]


@dataclass
class _Walk:
    """All networks that differ from the plain one, block by block."""

    case: Case
    factors: Any
    work: Path
    removals: dict[str, Removal] = field(default_factory=dict)

    def __call__(self, windows: Tensor, wide: Mapping[str, Mapping[str, Cut]], tell: Tell) -> dict[Any, float]:
        """KL of each to the plain network: of those that are narrow in one part, by their cut, or, where some are
        given, of the `wide` ones that are narrow everywhere, by name."""
        stream, mixers = self.case.stream, _mixers(self.case)
        copies = 1 + (len(wide) or sum(len(_alone(unit)) for unit in mixers))
        plain = stream.embed(windows, self.work / "shapes-plain", copies=copies)
        states: dict[Any, States] = {name: self._born(plain, name, copies) for name in wide}
        for i, path in enumerate(stream.blocks):
            tell("shapes together" if wide else "shapes", i, len(stream.blocks))
            with stream.loaded(path):
                mine = [unit for unit in mixers if unit.block == i]
                knives = {unit.side.part: self._knife(unit) for unit in mine if unit.side is not None}
                for key, hidden in states.items():
                    cuts = wide.get(key, {}) if wide else {}
                    with ExitStack() as stack:
                        for part in (part for part in knives if part in cuts):
                            stack.enter_context(_cut(knives[part], cuts[part]))
                        stream.through(i, hidden, hidden)
                for cut in (cut for unit in mine for cut in _alone(unit)) if not wide else ():
                    states[cut] = self._born(plain, f"{i}-{len(states)}", copies)
                    with _cut(knives[cut[0].removesuffix(MERGED)], cut):
                        stream.through(i, plain, states[cut])
                stream.through(i, plain, plain)
        tell("shapes together" if wide else "shapes", len(stream.blocks), len(stream.blocks))
        return self._compared(windows, plain, states)

    def _knife(self, unit: Unit) -> Knife:
        """What cuts a part of a loaded block; the order in which its channels go is kept."""
        part, network = unit.side.part, self.case.stream.network  # type: ignore[union-attr]
        if unit.side is not None and unit.side.by == "experts":
            makers = next(one for one in self.case.units if one.side is not None and one.side.part == part)
            knife: Knife = OfExperts.of(network, makers, unit, {**self.factors(makers), **self.factors(unit)})
            curves: tuple[str, ...] = (part, part + MERGED)
        elif unit.side is not None and unit.side.by == "block":
            knife, curves = OfBlock(self.case.stream, unit.block or 0), ()
        else:
            knife, curves = OfChannels.of(network, unit, self.factors(unit), self.removals.get(part)), (part,)
        if knife.removal is not None:
            self.removals |= dict.fromkeys(curves, knife.removal)
        return knife

    def _born(self, plain: States, name: Any, copies: int) -> States:
        room = parked(plain.shape, self.work / f"shapes-{name}", copies)
        for start in range(0, len(plain), self.case.stream.batch):
            room[start : start + self.case.stream.batch] = plain[start : start + self.case.stream.batch]
        return room

    def _compared(self, windows: Tensor, plain: States, states: Mapping[Any, States]) -> dict[Any, float]:
        stream, found = self.case.stream, {key: Comparison() for key in states}
        step = stream.windows(plain.shape[1])
        with torch.no_grad(), stream.tail() as tail:
            for start in range(0, len(windows), step):
                some = slice(start, start + step)
                theirs, labels = stream.answers(tail(plain[some].to(self.case.device)), windows[some])
                for key, hidden in states.items():
                    ours, _ = stream.answers(tail(hidden[some].to(self.case.device)), windows[some])
                    found[key].add(sums(ours, labels, theirs), labels.shape[1])
        return {key: one.kl for key, one in found.items()}


def _cut(knife: Knife, cut: Cut) -> AbstractContextManager[None]:
    curve, left = cut
    return knife.cut(left, curve.endswith(MERGED))
