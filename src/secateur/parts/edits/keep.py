"""Leave a unit as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import Part, payload_cost, text

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.types import Unit


@dataclass(frozen=True, repr=False)
class Keep:
    """As it is stored, in the model's own number type."""

    def __repr__(self) -> str:
        return text(self)

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> None:
        """No grid: nothing is rounded."""

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        return {"values": Part((rows, cols))}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["values"].float()
