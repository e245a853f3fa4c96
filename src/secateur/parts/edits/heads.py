"""Fewer KV heads, each with the query heads that read it: smaller q, k, v and o, and a smaller cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import must_share, text
from secateur.parts.edits._inner import nth

if TYPE_CHECKING:
    from secateur.types import Edit, Unit


@dataclass(frozen=True, repr=False)
class Heads:
    """The share `keep` of the KV heads of an attention, one at least; `then` codes what stays: one edit for all of
    q, k, v and o, or one for each with `;` between."""

    keep: float
    then: str = ""

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        must_share("heads", self.keep, "0.5")
        _ = self.side(-1)

    def side(self, at: int) -> Edit:
        """What is done to the weights that stay of one layer."""
        return nth(self.then, at)

    def left(self, heads: int) -> int:
        """How many of so many KV heads stay."""
        return max(1, round(self.keep * heads))

    def cost(self, unit: Unit) -> dict[str, float]:
        from secateur.parts.left import narrowed

        left, inner = narrowed(unit, self)
        return inner.cost(left)


def offered(inner: Sequence[Edit]) -> tuple[Heads, ...]:
    """Eighths of the heads; what is done to the rest is chosen by the menu's maker, side by side."""
    return tuple(Heads(n / 8) for n in range(7, 0, -1))
