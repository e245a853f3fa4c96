"""Narrower trunks: channels that a residual stage shares, taken out of every layer that makes or mixes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import text
from secateur.types import PlanError

if TYPE_CHECKING:
    from secateur.types import Edit, Unit

#: the row of a menu that all trunks of a network share
ROW = "trunks"


@dataclass(frozen=True, repr=False)
class Trunks:
    """How many channels are left of each trunk, in the order of the network: `"12 28 64"`.

    Its row holds no weights of its own: what is saved is saved by all layers along the trunks, so that their prices
    are others with every such edit (`Menu.narrower`).
    """

    left: str

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            hint = 'write how many channels are left of every trunk: trunks("12 28 64")'
            raise PlanError(f"`{self.left}` says no widths", hint)

    @property
    def widths(self) -> tuple[int, ...]:
        words = str(self.left).split()
        return tuple(int(word) for word in words) if all(word.isdecimal() for word in words) else ()

    def cost(self, unit: Unit) -> dict[str, float]:
        return {"bytes": 0.0, "payload": 0.0}


def left_of(trunks: Sequence[object], edits: Mapping[str, Edit]) -> dict[str, int]:
    """How many channels a plan leaves of each trunk, by its name; empty where it leaves them as they are."""
    edit = edits.get(ROW)
    if not isinstance(edit, Trunks):
        return {}
    if len(edit.widths) != len(trunks):
        hint = "plan again from this model's menu"
        raise PlanError(f"`{edit}` speaks of {len(edit.widths)} trunks, and this network has {len(trunks)}", hint)
    return {one.name: n for one, n in zip(trunks, edit.widths, strict=True)}  # type: ignore[attr-defined]
