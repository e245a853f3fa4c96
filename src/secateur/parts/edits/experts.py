"""Fewer experts in a layer of many: the ones that matter least left out, or merged into those they resemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import must_share, text
from secateur.parts.edits._inner import nth

if TYPE_CHECKING:
    from secateur.types import Edit, Unit

#: shares of the experts that menus offer
SHARES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)


@dataclass(frozen=True, repr=False)
class Experts:
    """The share `keep` of a layer's experts; `merge` says that the others become part of those that stay, with `then`
    what stays is coded: one edit for all, or one for gate and up and one for down with `;` between.

    It removes bytes. A token is sent to as many experts as before, so no FLOPs go but the router's.
    """

    keep: float
    then: str = ""
    merge: bool = False

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        must_share("experts", self.keep, "0.5")
        _ = self.side(-1)

    def side(self, at: int) -> Edit:
        """What is done to the weights that stay of one layer."""
        return nth(self.then, at)

    def left(self, experts: int) -> int:
        """How many of so many experts stay."""
        return max(1, round(self.keep * experts))

    def cost(self, unit: Unit) -> dict[str, float]:
        from secateur.parts.left import narrowed

        left, inner = narrowed(unit, self)
        return inner.cost(left)


def offered(inner: Sequence[Edit]) -> tuple[Experts, ...]:
    """Eighths of the experts, left out and merged; what is done to the rest is chosen by the menu's maker."""
    return tuple(Experts(keep, merge=merge) for keep in SHARES for merge in (False, True))
