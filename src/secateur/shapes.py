"""Smaller shapes on a language model's menu: fewer channels and heads, and parts left out.

What is lost is measured: each attention and MLP with some of its KV heads or channels, and without it, in a network
that is otherwise uncut, on a few windows of the text for correction. One walk over the blocks does all of it: a network
that differs in block i is the plain one up to there, so its states are born at block i and walk on with all others.
Between what was measured the curve follows the second order. What parts do to each other is seen in a few networks that
are narrow everywhere.

Sums of rounding errors are too low, and the survey's correction sets them right. So that the same correction serves
both, losses that were measured go on the menu as the sums that it would make them of (`Correction.total`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.case import Case, Tell
from secateur.maths.channels import Removal, refitted
from secateur.measure.compare import Comparison, sums
from secateur.model.factors import Factors
from secateur.model.matrix import place, put, view
from secateur.model.parked import States, parked
from secateur.parts.correction import Correction
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.heads import Heads
from secateur.parts.left import columns, count, removal
from secateur.types import Unit

#: shares at which each part is measured, beside without it; and those of the networks that are narrow everywhere
ALONE = {"channels": (0.75, 0.4), "heads": (0.5,)}
TOGETHER: tuple[Mapping[str, float], ...] = ({"channels": 0.75}, {"heads": 0.5}, {"channels": 0.5, "heads": 0.75})
#: windows that are measured on, at most
WINDOWS = 8
#: relative error of a part's curve: one standard error of a KL on so few windows, and what is between the points
ERROR = 0.15

#: a part with so many of its channels or heads left; 0: without it
Cut = tuple[str, int]


@dataclass(frozen=True)
class Measured:
    """What every part loses: second order and measured, and how single losses add up."""

    removals: Mapping[str, Removal]  # by part, where it can lose something of itself
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
    """Walk the check windows through the network and through all that differ from it in one part, or are narrow
    everywhere. `factors(unit)` are the survey's, by matrix."""
    return _Walk(case, factors, work)(tell)


@dataclass
class _Walk:
    case: Case
    factors: Any
    work: Path
    states: dict[Any, States] = field(default_factory=dict)
    removals: dict[str, Removal] = field(default_factory=dict)

    def __call__(self, tell: Tell) -> Measured:
        case, stream = self.case, self.case.stream
        windows = (case.check if len(case.check) else case.calib)[:WINDOWS]
        mixers = [unit for unit in case.units if unit.side is not None and unit.side.mixes]
        self.copies = sum(1 + len(ALONE.get(u.side.by, ())) for u in mixers if u.side) + len(TOGETHER) + 1
        plain = stream.embed(windows, self.work / "shapes-plain", copies=self.copies)
        for level in range(len(TOGETHER)):
            self.states[level] = self._born(plain, level)
        wide: dict[int, list[Cut]] = {level: [] for level in range(len(TOGETHER))}
        for i, path in enumerate(stream.blocks):
            tell("shapes", i, len(stream.blocks))
            with stream.loaded(path):
                mine = [unit for unit in mixers if unit.block == i]
                for key, hidden in self.states.items():
                    if not isinstance(key, int):
                        stream.through(i, hidden, hidden)
                known = {unit.name: self._known(unit) for unit in mine}
                for unit in mine:
                    for left in (*self._levels(unit, ALONE), 0):
                        key = (unit.side.part, left)  # type: ignore[union-attr]
                        self.states[key] = self._born(plain, f"{i}-{len(self.states)}")
                        with _cut(stream.network, unit, left, *known[unit.name]):
                            stream.through(i, plain, self.states[key])
                for level, shares in enumerate(TOGETHER):
                    cuts = [
                        (unit, left)
                        for unit in mine
                        for left in self._levels(unit, {k: (v,) for k, v in shares.items()})
                    ]
                    wide[level] += [(unit.side.part, left) for unit, left in cuts]  # type: ignore[union-attr]
                    self._through_all(i, level, cuts, known)
                stream.through(i, plain, plain)
        tell("shapes", len(stream.blocks), len(stream.blocks))
        found = self._compared(windows, plain)
        alone = {key: kl for key, kl in found.items() if not isinstance(key, int)}
        return Measured(self.removals, alone, [(wide[level], found[level]) for level in wide if wide[level]])

    def _through_all(self, i: int, level: int, cuts: Sequence[tuple[Unit, int]], known: Mapping[str, Any]) -> None:
        """A network that is narrow everywhere goes through this block."""
        stream = self.case.stream
        contexts = [_cut(stream.network, unit, left, *known[unit.name]) for unit, left in cuts]
        for one in contexts:
            one.__enter__()
        try:
            stream.through(i, self.states[level], self.states[level])
        finally:
            for one in contexts:
                one.__exit__(None, None, None)

    def _known(self, unit: Unit) -> tuple[Tensor, Factors, Removal | None]:
        """A loaded unit's matrix, its factors and the order in which its channels go."""
        (m,) = unit.matrices
        w, known = view(self.case.stream.network, m).clone(), self.factors(unit)[m.key]
        if not count(unit):
            return w, known, None
        found = removal(unit, w, known)
        self.removals[unit.side.part] = found  # type: ignore[union-attr]
        return w, known, found

    def _levels(self, unit: Unit, shares: Mapping[str, Sequence[float]]) -> list[int]:
        """How many channels or heads are left at these shares, where some are gone."""
        assert unit.side is not None
        n, make = count(unit), {"channels": Channels, "heads": Heads}.get(unit.side.by)
        if make is None or not n:
            return []
        found = (make(share).left(n) for share in shares.get(unit.side.by, ()))
        return [left for left in dict.fromkeys(found) if left < n]

    def _born(self, plain: States, name: Any) -> States:
        room = parked(plain.shape, self.work / f"shapes-{name}", self.copies)
        for start in range(0, len(plain), self.case.stream.batch):
            room[start : start + self.case.stream.batch] = plain[start : start + self.case.stream.batch]
        return room

    def _compared(self, windows: Tensor, plain: States) -> dict[Any, float]:
        """KL of each network to the plain one."""
        stream, found = self.case.stream, {key: Comparison() for key in self.states}
        step = stream.windows(plain.shape[1])
        with torch.no_grad(), stream.tail() as tail:
            for start in range(0, len(windows), step):
                some = slice(start, start + step)
                theirs, labels = stream.answers(tail(plain[some].to(self.case.device)), windows[some])
                for key, hidden in self.states.items():
                    ours, _ = stream.answers(tail(hidden[some].to(self.case.device)), windows[some])
                    found[key].add(sums(ours, labels, theirs), labels.shape[1])
        return {key: one.kl for key, one in found.items()}


class _cut:
    """Inside, a loaded unit mixes only the channels or heads that are left, refitted, or none."""

    def __init__(self, network: Any, unit: Unit, left: int, w: Tensor, factors: Factors, found: Removal | None):
        (self.matrix,) = unit.matrices
        self.network, self.w = network, w
        self.bias = getattr(network.get_submodule(place(self.matrix).module), "bias", None) if not left else None
        self.values = torch.zeros_like(w)
        if left and found is not None:
            some = columns(found.kept(left), sum(unit.side.per[0])).to(w.device)  # type: ignore[union-attr]
            self.values[:, some] = refitted(w, factors.a.to(w.device), some)

    def __enter__(self) -> None:
        put(self.network, self.matrix, self.values)
        self.before = None if self.bias is None else self.bias.detach().clone()
        if self.bias is not None:
            self.bias.detach().zero_()

    def __exit__(self, *_: Any) -> None:
        put(self.network, self.matrix, self.w)
        if self.bias is not None and self.before is not None:
            self.bias.detach().copy_(self.before)
