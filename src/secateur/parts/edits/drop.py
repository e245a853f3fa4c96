"""An attention or an MLP left out as a whole: the residual stream goes past it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import text

if TYPE_CHECKING:
    from secateur.types import Edit, Unit


@dataclass(frozen=True, repr=False)
class Drop:
    """Nothing is stored, nothing is computed. A layer is dropped where its attention and its MLP both are."""

    def __repr__(self) -> str:
        return text(self)

    def cost(self, unit: Unit) -> dict[str, float]:
        return {"bytes": 0.0, "payload": 0.0}


def offered(inner: Sequence[Edit]) -> tuple[Drop, ...]:
    return (Drop(),)
