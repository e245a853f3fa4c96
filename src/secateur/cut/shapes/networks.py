"""Networks that differ from the plain one in some parts, walked over the same windows side by side.

One walk over the blocks does all of them: a network that differs in block i alone is the plain one up to there, so its
states are born at block i and walk on with all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.cut.case import Case, Tell
from secateur.maths.channels import Removal
from secateur.measure.compare import Comparison, sums
from secateur.model.factors import Factors
from secateur.model.parked import States, parked
from secateur.parts.knives import Knife, OfBlock, OfChannels, OfExperts
from secateur.parts.left import bears
from secateur.types import Matrix, Unit

#: a part with so many of its channels, heads or experts left, 0: without it; the name says if others were merged
Cut = tuple[str, int]
MERGED = " merged"
#: windows that are measured on, at most; networks that are chosen by what was measured on others
WINDOWS = 8


@dataclass
class Networks:
    """All networks that differ from the plain one. `mixers` are the units that mix the channels of parts that may be
    cut, `factors(unit)` the survey's, by matrix; a whole block is a part, too, called by its path."""

    case: Case
    factors: Callable[[Unit], Mapping[str, Factors]]
    work: Path
    mixers: Sequence[Unit]
    removals: dict[str, Removal] = field(default_factory=dict)  # the order in which channels go, once a part was cut

    def alone(self, windows: Tensor, cuts: Mapping[int, Sequence[Cut]], tell: Tell) -> dict[Cut, float]:
        """KL to the plain network of those that differ in one part, each by its cut; `cuts` by block."""
        return self._walked("shapes", windows, {}, cuts, tell)

    def together(
        self,
        windows: Tensor,
        networks: Mapping[Any, Mapping[str, Cut]],
        tell: Tell,
        rounded: Callable[[int], Mapping[Matrix, Tensor]] | None = None,
    ) -> dict[Any, float]:
        """KL to the plain network of those that differ in many parts; the cuts of each by their part. With `rounded`,
        which gives the matrices of a block, all are cut from a network that is rounded before."""
        return self._walked("shapes together", windows, networks, {}, tell, rounded)

    def _walked(
        self,
        stage: str,
        windows: Tensor,
        networks: Mapping[Any, Mapping[str, Cut]],
        cuts: Mapping[int, Sequence[Cut]],
        tell: Tell,
        rounded: Callable[[int], Mapping[Matrix, Tensor]] | None = None,
    ) -> dict[Any, float]:
        stream = self.case.stream
        copies = 1 + len(networks) + sum(map(len, cuts.values()))
        plain = stream.embed(windows, self.work / "shapes-plain", copies=copies)
        states: dict[Any, States] = {name: self._born(plain, name, copies) for name in networks}
        for i, path in enumerate(stream.blocks):
            tell(stage, i, len(stream.blocks))
            wanted = {part for cut in networks.values() for part in cut} | {_part(cut) for cut in cuts.get(i, ())}
            if rounded is not None:
                with stream.loaded(path, cut=rounded(i)):
                    self._through(i, self._knives(i, wanted), states, networks)
            with stream.loaded(path):
                knives = self._knives(i, wanted) if rounded is None else {}
                if rounded is None:
                    self._through(i, knives, states, networks)
                for cut in cuts.get(i, ()):
                    states[cut] = self._born(plain, f"{i}-{len(states)}", copies)
                    with _cut(knives[_part(cut)], cut):
                        stream.through(i, plain, states[cut])
                stream.through(i, plain, plain)
        tell(stage, len(stream.blocks), len(stream.blocks))
        return self._compared(windows, plain, states)

    def _through(
        self,
        i: int,
        knives: Mapping[str, Knife],
        states: Mapping[Any, States],
        networks: Mapping[Any, Mapping[str, Cut]],
    ) -> None:
        """Every network's states through a loaded block, with what it has cut there."""
        for key, hidden in states.items():
            mine = networks.get(key, {})
            with ExitStack() as stack:
                for part in (part for part in knives if part in mine):
                    stack.enter_context(_cut(knives[part], mine[part]))
                self.case.stream.through(i, hidden, hidden)

    def _knives(self, i: int, wanted: set[str]) -> dict[str, Knife]:
        """What cuts the parts of a loaded block, where somebody wants them cut."""
        mine = [unit for unit in self.mixers if unit.block == i and unit.side is not None and unit.side.part in wanted]
        found = {unit.side.part: self._knife(unit) for unit in mine if unit.side is not None}
        path = self.case.stream.blocks[i]
        return found | ({path: OfBlock(self.case.stream, i)} if path in wanted else {})

    def _knife(self, unit: Unit) -> Knife:
        """What cuts a part of a loaded block; the order in which its channels go is kept."""
        part, network = unit.side.part, self.case.stream.network  # type: ignore[union-attr]
        if unit.side is not None and unit.side.by == "experts":
            makers = next(one for one in self.case.units if one.side is not None and one.side.part == part)
            knife: Knife = OfExperts.of(network, makers, unit, {**self.factors(makers), **self.factors(unit)})
            curves: tuple[str, ...] = (part, part + MERGED)
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


def windows_of(case: Case) -> tuple[Tensor, Tensor]:
    """Windows to measure single parts on, and others (if there are any) for what is chosen by that."""
    some = case.check if len(case.check) else case.calib
    return some[:WINDOWS], some[WINDOWS : 2 * WINDOWS] if len(some) > WINDOWS else some


def rounding_left(case: Case, factors: Any, removals: Mapping[str, Removal]) -> dict[str, list[float]]:
    """By unit whose channels or heads can go: the share of the damage of rounding it that is left with 0, 1, 2 ... of
    them left, all of it with all."""
    out: dict[str, list[float]] = {}
    for unit in (unit for unit in case.units if unit.side is not None and unit.side.by in ("channels", "heads")):
        if (known := removals.get(unit.side.part)) is not None:  # type: ignore[union-attr]
            mine = bears(unit, factors(unit))[known.order.cpu()].flip(0).cumsum(0)
            out[unit.name] = [0.0, *(mine / mine[-1].clamp_min(1e-300)).tolist()]
    return out


def _part(cut: Cut) -> str:
    return cut[0].removesuffix(MERGED)


def _cut(knife: Knife, cut: Cut) -> AbstractContextManager[None]:
    curve, left = cut
    return knife.cut(left, curve.endswith(MERGED))
