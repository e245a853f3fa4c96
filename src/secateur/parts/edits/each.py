"""An edit for every layer of an attention or an MLP whose shape stays: menus of shapes have one row for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import text
from secateur.parts.edits._inner import nth

if TYPE_CHECKING:
    from secateur.types import Edit, Unit


@dataclass(frozen=True, repr=False)
class Each:
    """`each('int(bits=3); int(bits=3); int(bits=4)')`: in the order of the network, what mixes the channels last."""

    then: str

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        _ = self.side(-1)

    def side(self, at: int) -> Edit:
        """What is done to the weights of one layer."""
        return nth(self.then, at)

    def left(self, n: int) -> int:
        """All stay."""
        return n

    def cost(self, unit: Unit) -> dict[str, float]:
        return self.side(unit.side.at if unit.side else -1).cost(unit)
