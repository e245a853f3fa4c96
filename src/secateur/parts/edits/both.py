"""Two grids for the two sides of an attention or an MLP whose shape stays: menus of shapes have one row for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import text
from secateur.parts.edits._inner import side

if TYPE_CHECKING:
    from secateur.types import Edit, Unit


@dataclass(frozen=True, repr=False)
class Both:
    """`then` for q, k and v (gate and up), `last` for o (down); as `then`, if not said."""

    then: str
    last: str = ""

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        _ = self.side(False), self.side(True)

    def side(self, mixes: bool) -> Edit:
        """What is done to the weights of one side."""
        return side(self.then, self.last, mixes)

    def left(self, n: int) -> int:
        """All stay."""
        return n

    def cost(self, unit: Unit) -> dict[str, float]:
        return self.side(unit.side is not None and unit.side.mixes).cost(unit)
