"""Integers with a scale per group of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import Part, payload_cost, text
from secateur.types import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.grids import Grid
    from secateur.types import Unit


@dataclass(frozen=True, repr=False)
class Int:
    """`bits`-wide whole numbers, one scale per `group` inputs of a row (0: one for the whole row).

    Symmetric codes run from -2^(bits-1) to 2^(bits-1) - 1 with a scale of either sign; asymmetric ones from 0, with a
    zero point per group. `scale="fp8"` stores scales in one byte (E4M3) and not in the model's own type.
    """

    bits: int
    group: int = 128
    symmetric: bool = True
    scale: str = ""

    __repr__ = text

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise PlanError(f"int has 2 to 8 bits, not {self.bits}", "for fewer there are other grids")
        if self.group != 0 and self.group < 8:
            raise PlanError(f"a group of {self.group} inputs is too small to pay for its scale", "use 32, 64, 128 or 0")
        if self.scale not in ("", "fp8"):
            raise PlanError(f"int knows no scales of type `{self.scale}`", 'use scale="fp8", or leave it out')

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Grid:
        import torch

        from secateur.maths.grids.affine import Affine

        held = torch.float8_e4m3fn if self.scale else getattr(torch, dtype)
        return Affine(self.bits, self.group, self.symmetric, held)

    def groups(self, cols: int) -> int:
        """Scales per row."""
        return -(-cols // self.group) if self.group else 1

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        levels, groups = 2**self.bits, self.groups(cols)
        parts = {
            "codes": Part((rows, cols), levels, -levels // 2 if self.symmetric else 0),
            "scale": Part((rows, groups), dtype="F8_E4M3" if self.scale else ""),
        }
        return parts if self.symmetric else {**parts, "zero": Part((rows, groups), levels)}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        codes, scale = tensors["codes"].float(), tensors["scale"].float()
        group = self.group or codes.shape[1]
        if "zero" in tensors:
            codes = codes - _spread(tensors["zero"].float(), group, codes.shape[1])
        return codes * _spread(scale, group, codes.shape[1])


def _spread(x: Tensor, group: int, cols: int) -> Tensor:
    return x.repeat_interleave(group, 1)[:, :cols]
