"""Channels on the menu: which of every group go, what that is expected to cost, and the network without them.

The second order says in which order a group's channels go, and how the damage grows; it is far off where a quarter of
them and more are gone. So each group is measured at a few shares, alone in a network that is otherwise uncut (which
takes no more than writing one matrix and running the network on the examples for correction), and the curve between is
bent through what was found. What groups do to each other is measured on all of them at once, at two shares.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from secateur.cut.case import Case, Tell
from secateur.maths.channels import Moments, Removal
from secateur.measure.compare import Comparison, sums
from secateur.model.factors import Factors
from secateur.model.matrix import place
from secateur.parts.correction import Correction
from secateur.parts.damage import Row
from secateur.parts.edits.channels import Channels
from secateur.parts.left import narrowed
from secateur.parts.narrow import Fewer, Thinner, alone, met, moments, removal, thinning, together
from secateur.parts.trunk import chosen
from secateur.types import Edit, Unit

#: shares at which every group is measured by itself, and all groups together
ALONE, TOGETHER = (0.75, 0.5, 0.25), (0.75, 0.5)
#: what is seen of channels: examples for the order and for fitting anew, and to measure on
SEEN, MEASURED = 512, 256
#: relative error of a group's curve: one standard error of a KL on so many examples, and what is between the points
_ERROR = 0.15


@dataclass(frozen=True)
class Groups:
    """The coupled channels of a network, seen once; `factors` of each unit's matrices by key."""

    case: Case
    factors: Mapping[str, Factors]

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        return tuple(unit for unit in self.case.units if unit.kind == "channels")

    @cached_property
    def inputs(self) -> Any:
        return self.case.stream.embed(self.case.calib[:SEEN])

    @cached_property
    def seen(self) -> dict[str, Moments]:
        return moments(self.case.stream.network, self.units, self.inputs)

    @cached_property
    def removals(self) -> dict[str, Removal]:
        network = self.case.stream.network
        return {
            unit.name: removal(network, unit, self.seen[unit.name], self.factors[unit.matrices[-1].key].g)
            for unit in self.units
        }

    @cached_property
    def thinnings(self) -> dict[str, Removal]:
        """The order in which the channels of each trunk go."""
        network, trunks = self.case.stream.network, self.case.trunks
        paths = [path for trunk in trunks for path in trunk.takers]
        seen, key = met(network, paths, self.inputs), {}
        for unit in self.case.units:
            key |= {place(m).module: m.key for m in unit.matrices}
        g = {path: self.factors[key[path]].g for path in paths}
        return {trunk.name: thinning(network, trunk, seen, g) for trunk in trunks}

    def along(self, widths: Mapping[str, int]) -> dict[str, Tensor]:
        """Channels that stay of each trunk, in their order, when so many do; nothing where all do."""
        return chosen(self.case.trunks, self.thinnings, widths) if widths else {}

    def fewer(self, unit: Unit, edit: Channels) -> Fewer:
        """A group and the channels that an edit leaves of it."""
        kept = self.removals[unit.name].kept(edit.left(unit.matrices[0].rows))
        return Fewer(unit, self.case.stream.groups[unit.name], kept)

    def row(self, unit: Unit, edits: Sequence[Edit | None], row: Row) -> Row:
        """A unit's row with the damages of taking channels away; what stays is rounded as the row says of all of it."""
        curve = self._curve(unit)
        damage, error = row.damage.copy(), row.error.copy()
        at = {edit: e for e, edit in enumerate(edits) if edit is not None and not isinstance(edit, Channels)}
        for e, edit in enumerate(edits):
            if isinstance(edit, Channels):
                gone = curve.kl(self.removals[unit.name].left(edit.left(unit.matrices[0].rows)))
                left = narrowed(unit, edit)[0].size / unit.size
                inner = at.get(edit.inner)
                rounded = 0.0 if inner is None else left * row.damage[inner]
                damage[e] = gone + rounded
                error[e] = np.hypot(_ERROR * gone, 0.0 if inner is None else left * row.error[inner])
        return Row(damage, error, row.probes, row.expected)

    def probes(self, tell: Tell) -> dict[float, Comparison]:
        """All groups at one share each, fitted one after the other, against the network as it is."""
        found, plain = {}, self.plain
        for at, keep in enumerate(TOGETHER):
            tell("channels together", at, len(TOGETHER))
            with self.case.stream.loaded():
                self.take(dict.fromkeys((unit.name for unit in self.units), Channels(keep)))
                found[keep] = self.compared(plain)
        tell("channels together", len(TOGETHER), len(TOGETHER))
        return found

    def take(
        self,
        edits: Mapping[str, Edit],
        keep: Collection[str] = (),
        widths: Mapping[str, int] | None = None,
        examples: int = SEEN,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take channels away as the edits say, and of trunks all but `widths`, in the loaded network; those that stay,
        by unit and by trunk. Layers in `keep` are not fitted anew, others to so many `examples`."""
        along = self.along(widths or {})
        thinner = [Thinner(trunk, along[trunk.name]) for trunk in self.case.trunks if trunk.name in along]
        taken = [(unit, edits[unit.name]) for unit in self.units if unit.name in edits]
        fewer = [self.fewer(unit, edit) for unit, edit in taken if isinstance(edit, Channels)]
        together(self.case.stream.network, fewer, self.inputs[:examples], keep, thinner)
        return {one.unit.name: one.kept for one in fewer}, along

    def _curve(self, unit: Unit) -> Correction:
        """Second order against what is measured, for one group by itself."""
        points: list[tuple[float, float]] = []
        for keep in ALONE:
            fewer, plain = self.fewer(unit, Channels(keep)), self.plain
            with self.case.stream.loaded():
                alone(self.case.stream.network, fewer, self.seen[unit.name])
                kl = self.compared(plain).kl
            x = self.removals[unit.name].left(len(fewer.kept))
            if x > 0 and kl > 0 and (not points or (x > points[-1][0] and kl > points[-1][1])):
                points.append((x, kl))
        return Correction(tuple(x for x, _ in points), tuple(y for _, y in points))

    def compared(self, plain: Tensor) -> Comparison:
        """The network as it is now against its logits as it was, on the examples for correction."""
        check, out = self.case.check[:MEASURED], Comparison()
        out.add(sums(self._logits(), check.labels[:, None], plain), 1)
        return out

    def _logits(self) -> Tensor:
        stream = self.case.stream
        return stream.through(0, self._check)[:]

    @cached_property
    def _check(self) -> Any:
        return self.case.stream.embed(self.case.check[:MEASURED])

    @cached_property
    def plain(self) -> Tensor:
        return self._logits()
