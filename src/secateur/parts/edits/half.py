"""Weights of 32 bits as numbers of 16: what is lost is next to nothing, and so are the bytes that stay, a half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.parts.edits import Part, payload_cost, text

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.types import Unit


@dataclass(frozen=True, repr=False)
class Half:
    """IEEE numbers of 16 bits (largest 65504), for any shape of matrix; of use only where more are stored."""

    def __repr__(self) -> str:
        return text(self)

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Any:
        """A form: no scale is to be found, so there is nothing to sweep. `dtype` does not matter."""
        from secateur.maths.halved import Halved

        return Halved()

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        return {"values": Part((rows, cols), dtype="F16")}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["values"].float()
