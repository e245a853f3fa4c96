"""Smaller shapes on a language model's menu: fewer channels and heads, and parts left out.

What is lost is measured: each attention and MLP with some of its KV heads or channels, and without it, in a network
that is otherwise uncut, on a few windows of the text for correction. One walk over the blocks does all of it: a network
that differs in block i is the plain one up to there, so its states are born at block i and walk on with all others.
Between what was measured the curve follows the second order. What parts do to each other, and what it means to choose
by measurements that have errors, is seen in a few networks that are narrow everywhere, where it seems to cost least.

Sums of rounding errors are too low, and the survey's correction sets them right. So that the same correction serves
both, losses that were measured go on the menu as the sums that it would make them of (`Correction.total`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.case import Case, Tell
from secateur.maths import knapsack
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

#: shares at which each part is measured, beside without it
ALONE = {"channels": (0.75, 0.4), "heads": (0.5,)}
#: shares of the parts' weights that are left in the networks that are narrow everywhere
TOGETHER = (0.8, 0.6, 0.4)
#: shares that those networks may choose from
CHOICE = (0.9, 0.75, 0.5, 0.25, 0.1)
#: windows that are measured on, at most; the networks that are narrow everywhere on others
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
    """Walk the check windows through the network and through all that differ from it in one part, and then others
    through a few that are narrow everywhere. `factors(unit)` are the survey's, by matrix."""
    windows = case.check if len(case.check) else case.calib
    walk = _Walk(case, factors, work)
    alone = walk(windows[:WINDOWS], {}, tell)
    seen = Measured(walk.removals, alone, ())
    cuts = {str(share): _cheapest(_options(case, seen), share) for share in TOGETHER}
    others = windows[WINDOWS : 2 * WINDOWS] if len(windows) > WINDOWS else windows
    found = walk(others, cuts, tell)
    return replace(seen, together=[(list(cut.items()), found[name]) for name, cut in cuts.items() if cut])


def _options(case: Case, seen: Measured) -> dict[str, list[tuple[int, float, float]]]:
    """By part: what may be left of it, the weights that this takes away, and what is lost."""
    out: dict[str, list[tuple[int, float, float]]] = {}
    for unit in _mixers(case):
        assert unit.side is not None
        size = sum(one.size for one in case.units if one.side is not None and one.side.part == unit.side.part)
        n, levels = count(unit), _levels(unit, dict.fromkeys(("channels", "heads"), CHOICE))
        mine = [(left, size * (1 - left / n), seen.lost(unit.side.part, left)) for left in levels]
        out[unit.side.part] = [(-1, 0.0, 0.0), *mine]
    return out


def _cheapest(options: Mapping[str, Sequence[tuple[int, float, float]]], share: float) -> dict[str, int]:
    """What is left of each part that loses something, so that no more than this share of the weights stays of all that
    could go, at least cost."""
    wide = max(len(one) for one in options.values())

    def table(at: int) -> np.ndarray:
        return np.array([[o[at] for o in one] + [np.inf] * (wide - len(one)) for one in options.values()])

    saved, lost = table(1), table(2)
    most = np.where(np.isfinite(saved), saved, 0.0).max(1, keepdims=True)
    stays = np.where(np.isfinite(saved), most - saved, np.inf)
    found = knapsack.lagrange([stays], [share * float(most.sum())], lost).edits.tolist()
    lefts = {part: one[e][0] for (part, one), e in zip(options.items(), found, strict=True)}
    return {part: left for part, left in lefts.items() if left >= 0}


def _mixers(case: Case) -> list[Unit]:
    return [unit for unit in case.units if unit.side is not None and unit.side.mixes]


def _levels(unit: Unit, shares: Mapping[str, Sequence[float]]) -> list[int]:
    """How many channels or heads are left at these shares, where some are gone."""
    assert unit.side is not None
    n, make = count(unit), {"channels": Channels, "heads": Heads}.get(unit.side.by)
    if make is None or not n:
        return []
    found = (make(share).left(n) for share in shares.get(unit.side.by, ()))
    return [left for left in dict.fromkeys(found) if left < n]


@dataclass
class _Walk:
    """All networks that differ from the plain one, block by block."""

    case: Case
    factors: Any
    work: Path
    removals: dict[str, Removal] = field(default_factory=dict)

    def __call__(self, windows: Tensor, wide: Mapping[str, Mapping[str, int]], tell: Tell) -> dict[Any, float]:
        """KL of each to the plain network: of those that are narrow in one part, by part and what is left, or, where
        some are given, of the `wide` ones that are narrow everywhere, by name."""
        stream, mixers = self.case.stream, _mixers(self.case)
        copies = 1 + (len(wide) or sum(1 + len(_levels(unit, ALONE)) for unit in mixers))
        plain = stream.embed(windows, self.work / "shapes-plain", copies=copies)
        states: dict[Any, States] = {name: self._born(plain, name, copies) for name in wide}
        for i, path in enumerate(stream.blocks):
            tell("shapes together" if wide else "shapes", i, len(stream.blocks))
            with stream.loaded(path):
                mine = [unit for unit in mixers if unit.block == i]
                known = {unit.name: self._known(unit) for unit in mine}
                for key, hidden in states.items():
                    cuts = wide.get(key, {}) if wide else {}
                    with ExitStack() as stack:
                        for unit in mine:
                            part = unit.side.part  # type: ignore[union-attr]
                            if part in cuts:
                                stack.enter_context(_cut(stream.network, unit, cuts[part], *known[unit.name]))
                        stream.through(i, hidden, hidden)
                for unit in mine if not wide else ():
                    for left in (*_levels(unit, ALONE), 0):
                        key = (unit.side.part, left)  # type: ignore[union-attr]
                        states[key] = self._born(plain, f"{i}-{len(states)}", copies)
                        with _cut(stream.network, unit, left, *known[unit.name]):
                            stream.through(i, plain, states[key])
                stream.through(i, plain, plain)
        tell("shapes together" if wide else "shapes", len(stream.blocks), len(stream.blocks))
        return self._compared(windows, plain, states)

    def _known(self, unit: Unit) -> tuple[Tensor, Factors, Removal | None]:
        """A loaded unit's matrix, its factors and the order in which its channels go."""
        (m,) = unit.matrices
        w, known = view(self.case.stream.network, m).clone(), self.factors(unit)[m.key]
        part = unit.side.part  # type: ignore[union-attr]
        if count(unit) and part not in self.removals:
            self.removals[part] = removal(unit, w, known)
        return w, known, self.removals.get(part)

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


@contextmanager
def _cut(network: Any, unit: Unit, left: int, w: Tensor, factors: Factors, found: Removal | None) -> Iterator[None]:
    """Inside, a loaded unit mixes only the channels or heads that are left, refitted, or none."""
    (m,) = unit.matrices
    values = torch.zeros_like(w)
    if left and found is not None:
        some = columns(found.kept(left), sum(unit.side.per[0])).to(w.device)  # type: ignore[union-attr]
        values[:, some] = refitted(w, factors.a.to(w.device), some)
    bias = getattr(network.get_submodule(place(m).module), "bias", None) if not left else None
    before = None if bias is None else bias.detach().clone()
    put(network, m, values)
    if bias is not None:
        bias.detach().zero_()
    try:
        yield
    finally:
        put(network, m, w)
        if bias is not None and before is not None:
            bias.detach().copy_(before)
