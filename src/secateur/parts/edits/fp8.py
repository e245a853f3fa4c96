"""8-bit floats (E4M3) with a scale per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import Part, payload_cost, text

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.grids import Grid
    from secateur.types import Unit


@dataclass(frozen=True, repr=False)
class Fp8:
    """E4M3 numbers (largest 448), one scale per row."""

    def __repr__(self) -> str:
        return text(self)

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Grid:
        import torch

        from secateur.maths.grids.floats import Float

        return Float("fp8", getattr(torch, dtype))

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        return {"codes": Part((rows, cols), dtype="F8_E4M3"), "scale": Part((rows, 1))}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["codes"].float() * tensors["scale"].float()
