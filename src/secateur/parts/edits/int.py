"""Integers with a scale per group of inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import Part, payload_cost, text
from secateur.types import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.grids import Grid
    from secateur.types import Unit


#: the smallest group that menus offer to all
USUAL = 32


@dataclass(frozen=True, repr=False)
class Int:
    """`bits`-wide whole numbers, one scale per `group` inputs of a row (0: one for the whole row).

    Symmetric codes run from -2^(bits-1) to 2^(bits-1) - 1 with a scale of either sign; asymmetric ones from 0, with a
    whole-number zero point per group. `zero="fp8"` has fractional zero points instead, of one byte (E4M3), on codes as
    in the symmetric case: any one bit then is any two levels. `scale="fp8"` stores scales in one byte and not in the
    model's own type.
    """

    bits: int
    group: int = 128
    symmetric: bool = True
    scale: str = ""
    zero: str = ""

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        least = 1 if self.zero else 2
        if self.bits not in range(least, 9):
            raise PlanError(f"int has {least} to 8 bits, not {self.bits}", 'one bit needs zero="fp8"')
        if self.group != 0 and self.group < 8:
            raise PlanError(f"a group of {self.group} inputs is too small to pay for its scale", "use 32, 64, 128 or 0")
        for field in ("scale", "zero"):
            if getattr(self, field) not in ("", "fp8"):
                hint = f'use {field}="fp8", or leave it out'
                raise PlanError(f"int knows no {field}s of type `{getattr(self, field)}`", hint)
        if self.zero and self.symmetric:
            raise PlanError("a symmetric grid has no zero points", 'say symmetric=False with zero="fp8"')

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Grid:
        import torch

        from secateur.maths.grids.affine import Affine

        held = torch.float8_e4m3fn if self.scale else getattr(torch, dtype)
        return Affine(self.bits, self.group, self.symmetric, held, torch.float8_e4m3fn if self.zero else None)

    @property
    def signed(self) -> bool:
        """Whether codes count from -2^(bits-1), and not from 0."""
        return self.symmetric or bool(self.zero)

    def groups(self, cols: int) -> int:
        """Scales per row."""
        return -(-cols // self.group) if self.group else 1

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        levels, groups = 2**self.bits, self.groups(cols)
        parts = {
            "codes": Part((rows, cols), levels, -levels // 2 if self.signed else 0),
            "scale": Part((rows, groups), dtype="F8_E4M3" if self.scale else ""),
        }
        if self.symmetric:
            return parts
        return {**parts, "zero": Part((rows, groups), dtype="F8_E4M3") if self.zero else Part((rows, groups), levels)}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        codes, scale = tensors["codes"].float(), tensors["scale"].float()
        group = self.group or codes.shape[1]
        if "zero" in tensors:
            codes = codes - _spread(tensors["zero"].float(), group, codes.shape[1])
        return codes * _spread(scale, group, codes.shape[1])


def narrow(units: Iterable[Unit] = ()) -> tuple[Int, ...]:
    """Integers of few bits, as menus of these units offer them.

    A scale and a fractional zero point of one byte each cost as much as one 16-bit scale, and put both ends of the
    grid where the weights end: uniform 2 bits in groups of 64 then cut the KL of `lm-small` from 0.109 to 0.074.
    But E4M3 has no numbers below 2^-9 and few just above: small weights (a standard deviation of 0.01 to 0.02, as
    large networks have) at 4 bits and more want 16-bit scales, so these are offered too, and the survey sees which
    pays. Rows that none of these groups divides have groups of their own; whole rows are for primes.
    """
    groups = {1: (64,), 2: (32, 64, 128, 256), 3: (32, 64, 128, 256), 4: (32, 64, 128), 5: (64, 128)}
    fine = [Int(bits, group, False, "fp8", "fp8") for bits, some in groups.items() for group in some]
    wide = [Int(bits, group, False, "", "fp8") for bits in (2, 3, 4, 5) for group in (64, 128)]
    own = [
        Int(bits, group, False, scale, "fp8")
        for group in _divisors(units)
        for bits in (2, 3, 4, 5)
        for scale in ("fp8", "")
    ]
    return (*fine, *wide, *own, *(Int(bits, 0) for bits in (2, 3, 4, 5, 6)))


def _divisors(units: Iterable[Unit], most: int = 4) -> list[int]:
    """Groups of about 32 and 64 inputs for rows that powers of two do not divide, 43 and 86 for 172; those that most
    weights can have, where sizes are many."""
    served: dict[int, int] = {}
    for m in (m for unit in units for m in unit.matrices if m.cols % USUAL):
        whole = [n for n in range(24, 97) if m.cols % n == 0 and n < m.cols]
        for group in {max((n for n in whole if n <= limit), default=0) for limit in (48, 96)} - {0}:
            served[group] = served.get(group, 0) + m.size
    return sorted(sorted(served, key=lambda group: (-served[group], group))[:most])


def _spread(x: Tensor, group: int, cols: int) -> Tensor:
    return x.repeat_interleave(group, 1)[:, :cols]
