"""NVFP4: 4-bit floats in groups of 16 with an 8-bit float as scale and one scale for the whole matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from secateur.parts.edits import Part, payload_cost, text

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.grids import Grid
    from secateur.types import Unit


@dataclass(frozen=True, repr=False)
class Nvfp4:
    """E2M1 numbers, one E4M3 scale per 16 inputs, one float32 that divides them all: 4.5 bits."""

    group: ClassVar[int] = 16

    def __repr__(self) -> str:
        return text(self)

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Grid:
        from secateur.maths.grids.floats import Float

        return Float("nvfp4")

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        return {
            "codes": Part((rows, cols), 16),
            "scale": Part((rows, -(-cols // self.group)), dtype="F8_E4M3"),
            "global_scale": Part((1,), dtype="F32"),
        }

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        from secateur.parts.edits._fp4 import decode_fp4

        return decode_fp4(tensors["codes"], tensors["scale"].float() / tensors["global_scale"].float(), self.group)
