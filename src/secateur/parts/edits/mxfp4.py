"""MXFP4: 4-bit floats in groups of 32 with a power of two as scale (OCP Microscaling formats)."""

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
class Mxfp4:
    """E2M1 numbers, one E8M0 exponent per 32 inputs: 4.25 bits."""

    group: ClassVar[int] = 32

    def __repr__(self) -> str:
        return text(self)

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Grid:
        from secateur.maths.grids.floats import Float

        return Float("mxfp4")

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        return {"codes": Part((rows, cols), 16), "scale": Part((rows, -(-cols // self.group)), dtype="U8")}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        from secateur.maths.packing import unpack_exponents
        from secateur.parts.edits._fp4 import decode_fp4

        return decode_fp4(tensors["codes"], unpack_exponents(tensors["scale"]), self.group)
