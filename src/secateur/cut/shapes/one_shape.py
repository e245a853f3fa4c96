"""The menu of a format that holds one shape for all blocks: single units, each at every shape that all may have.

Which shape that is the plan decides for all rows at once (`choosing.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from secateur.cut.case import Case
from secateur.cut.price import price
from secateur.cut.shapes.even import Even
from secateur.cut.shapes.free import ERROR
from secateur.cut.shapes.networks import MERGED
from secateur.cut.shapes.singles import FEW, Offer, Singles, plain, shapes_for, undominated
from secateur.parts.correction import Correction
from secateur.parts.edits import text
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.heads import Heads
from secateur.parts.edits.keep import Keep
from secateur.parts.left import Shaping, count
from secateur.types import Edit, Unit


def misshapen(case: Case, edits: Mapping[str, Edit]) -> str | None:
    """Why units with these edits are no file whose blocks have one shape, or None."""
    gone = {unit.name: isinstance(edits[unit.name], Drop) for unit in case.units if unit.side is not None}
    blocks: dict[int | None, Unit] = {}
    for unit in (unit for unit in case.units if unit.name in gone):
        first = blocks.setdefault(unit.block, unit)
        if gone[first.name] != gone[unit.name]:
            one, other = (first, unit) if gone[first.name] else (unit, first)
            return f"`{one.name}` would be gone and `{other.name}` not, and {case.format.name} leaves out whole blocks"
    alike: dict[str, tuple[Unit, int]] = {}
    for unit in (unit for unit in case.units if unit.side is not None and unit.side.by and not gone[unit.name]):
        edit, n = edits[unit.name], count(unit)
        left = edit.left(n) if isinstance(edit, Shaping) and n else n
        first, others = alike.setdefault(unit.side.by, (unit, left))  # type: ignore[union-attr]
        if others != left and isinstance(edit, Shaping) | isinstance(edits[first.name], Shaping):
            said = f"`{first.name}` would have {others} and `{unit.name}` {left} {unit.side.by}"  # type: ignore[union-attr]
            return f"{said}, and {case.format.name} holds one shape for all blocks"
    return None


@dataclass(frozen=True)
class OneShape:
    """Offers for the rows of one menu."""

    case: Case
    singles: Singles
    seen: Even
    how: Correction
    over: str

    def __call__(self, units: Sequence[Unit]) -> list[Offer]:
        """Everything that a row can have: its edits, the same at smaller shapes, and to go with its block."""
        can = self.singles.can
        able = [e for e in range(len(self.singles.edits)) if all(can[unit.name][e] for unit in units)]
        found = [plain(self.case, units, self.singles, e, self.over) for e in able]
        if units[0].side is None:
            return found
        worth = self._worth(able, found)
        if self._free(units[0].side.by):
            shapes = (shape for shape in shapes_for(self.case, units[0]) if shape is not None)
            found += [offer for shape in shapes for offer in self._narrowed(units, shape, worth)]
        return [*found, *self._gone(units)]

    @property
    def order(self) -> list[int]:
        """Blocks as they go, those that hold what the user wants as it is left out."""
        kept = {unit.block for unit in self.case.units if unit.name in self.singles.kept}
        return [block for block in self.seen.order if block not in kept]

    def _free(self, by: str) -> bool:
        """Whether all that can lose such a thing may: one width holds for all."""
        mine = [unit for unit in self.case.units if unit.side is not None and unit.side.by == by]
        return by in self.seen.parts and not any(unit.name in self.singles.kept for unit in mine)

    def _worth(self, able: Sequence[int], found: Sequence[Offer]) -> list[int]:
        """Of single edits those that no other beats; all, where these are too few to choose from."""
        sizes = np.array([[one.cost[name] for name in self.case.resources] for one in found])
        best = undominated(sizes, np.array([one.damage for one in found]))
        return [able[k] for k in best] if len(best) > FEW else list(able)

    def _narrowed(
        self, units: Sequence[Unit], shape: Channels | Heads | Experts, worth: Sequence[int]
    ) -> Iterator[Offer]:
        """A row at a smaller shape, with each of the single edits in `worth`."""
        case, singles, left = self.case, self.singles, shape.left(count(units[0]))
        kind = units[0].side.by + (MERGED if isinstance(shape, Experts) and shape.merge else "")  # type: ignore[union-attr]
        mixed = {u.name: self.seen.share(u.side.part, kind, left) for u in units if u.side and u.side.mixes}
        lost = self.how.total(self.seen.lost(kind, left)) if mixed else 0.0
        # of experts a token meets as many as before, so all that rounding does to them stays
        shares = [1.0 if isinstance(shape, Experts) else self.seen.rounding[unit.name][left] for unit in units]
        for e in worth:
            edit: Edit = singles.edits[e]
            edit = replace(shape, then="" if isinstance(edit, Keep) else text(edit))
            if any(case.refuses(unit, edit) for unit in units):
                continue
            prices = [price(case, unit, edit, self.over) for unit in units]
            rows = [(x, singles.rows[unit.name]) for x, unit in zip(shares, units, strict=True)]
            scale, near = self._scaled(math.fsum(singles.rows[name].damage[e] for name in mixed), mixed)
            whole, mine = scale * lost, math.fsum(mixed.values())
            yield Offer(
                edit,
                {name: float(sum(one[name] for one in prices)) for name in case.resources},
                whole * mine + math.fsum(x * row.damage[e] for x, row in rows),
                # rows bear one error together, and their errors add in squares
                math.hypot(near * whole * math.sqrt(mine), *(x * row.error[e] for x, row in rows)),
            )

    def _gone(self, units: Sequence[Unit]) -> list[Offer]:
        """To go with the whole block, whose loss is told to its first unit."""
        if units[0].block not in self.order or any(self.case.refuses(unit, Drop()) for unit in units):
            return []
        scale, near = self._scaled()
        first = units[0] == next(unit for unit in self.case.units if unit.block == units[0].block)
        lost = scale * self.seen.blocks(self.how)[units[0].block] if first else 0.0
        return [Offer(Drop(), dict.fromkeys(self.case.resources, 0.0), lost, near * lost)]

    def _scaled(self, rounding: float = 0.0, units: Iterable[str] = ()) -> tuple[float, float]:
        """What losses of a shape must be multiplied by, and their relative error then. Beside rounding it is more: as
        was measured on a rounded network where the units that bear the loss are rounded as they were there, else in
        proportion to the size of the errors, the root of their damage."""
        scale, spread = self.scale
        more, spread_rounded = self.scale_rounded
        there = math.fsum(self.seen.expected.get(name, 0.0) for name in units)
        near = min(math.sqrt(rounding / there), 2.0) if there > 0 else 0.0
        spread = max(spread, spread_rounded) if near else spread
        return scale + near * max(more - scale, 0.0), math.hypot(ERROR, spread)

    @cached_property
    def scale(self) -> tuple[float, float]:
        return self.seen.scale(self.how)

    @cached_property
    def scale_rounded(self) -> tuple[float, float]:
        return self.seen.scale_rounded(self.how)
