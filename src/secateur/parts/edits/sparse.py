"""Fewer weights: a mask; those that stay make up for those that go, and are coded on a grid where one is named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from secateur.parts.edits import GridEdit, Part, must_share, payload_cost, read, text
from secateur.types import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.patterns import Pattern
    from secateur.maths.sparse import Sparse as Form
    from secateur.types import Edit, Unit

#: shares of the weights that menus offer, and of N:M those that hardware or kernels know
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
N_OF_M = ((2, 4), (4, 8))
#: bits of the grids that menus offer behind a mask, and the shares they are offered with
CODED, THINNED = (8, 4), (0.7, 0.5)


@dataclass(frozen=True, repr=False)
class Sparse:
    """The share `keep` of a matrix' weights, or `n` of every `m` inputs of a row; `then` codes those that stay.

    With `block`, runs of so many inputs go or stay together; `square=True` makes them `block` x `block` weights. What
    is stored is a bit a weight (or a block), or a number of C(m, n) for every `m`, and the weights that stay.
    """

    keep: float = 0.0
    n: int = 0
    m: int = 0
    block: int = 1
    square: bool = False
    then: str = ""

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        if self.n or self.m:
            if self.keep or self.block != 1 or self.square:
                raise PlanError(f"`{self}` says what to keep in two ways", "write sparse(keep=0.5) or sparse(n=2, m=4)")
            if not 0 < self.n < self.m <= 16:
                raise PlanError(f"`{self}` does not keep n of up to 16", "sparse(n=2, m=4) keeps 2 of every 4 inputs")
        else:
            must_share("sparse", self.keep, "0.5")
        if self.block < 1 or (self.square and self.block == 1):
            raise PlanError(f"a block of {self.block} is none", "say block=16, and square=True for 16 x 16")
        if self.then and (set(self.inner.payload(16, 4096)) - _CODED or not hasattr(self.inner, "grid")):
            raise PlanError(
                f"`{self.then}` cannot code what a mask leaves",
                "`then` takes a grid of numbers without zero points, like then='int(bits=4, group=128)'",
            )

    @property
    def inner(self) -> GridEdit:
        """What codes the weights that stay."""
        return read(self.then)

    @property
    def group(self) -> int:
        """Rows are whole groups of so many inputs."""
        own = self.m or self.block
        return math.lcm(own, getattr(self.inner, "group", 0) or 1) if self.then else own

    @property
    def share(self) -> float:
        """The share of the weights that stays."""
        return self.n / self.m if self.m else self.keep

    @property
    def pattern(self) -> Pattern:
        from secateur.maths.patterns import Pattern

        return Pattern(self.keep, self.n, self.m, self.block if self.square else 1, self.block)

    def refuses(self, unit: Unit) -> str | None:
        """Why a unit cannot have it, in words, or None."""
        odd = next((m.rows for m in unit.matrices if self.square and m.rows % self.block), 0)
        return f"{odd} rows do not divide into tiles of {self.block}" if odd else None

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def grid(self, dtype: str = "float16") -> Form:
        import torch

        from secateur.maths.sparse import Sparse as Form

        return Form(self.pattern, getattr(torch, dtype), self.inner.grid(dtype) if self.then else None)

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        mask = Part(self.pattern.shape(rows, cols), self.pattern.levels)
        kept = (self.pattern.kept(rows, cols),)
        if not self.then:
            return {"mask": mask, "values": Part(kept)}
        coded = self.inner.payload(rows, cols)
        return {"mask": mask, **coded, "codes": replace(coded["codes"], shape=kept)}

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        import torch

        mask = self.pattern.spread(tensors["mask"])

        def spread(kept: Tensor) -> Tensor:
            kept = kept.float() if kept.is_floating_point() else kept.int()
            return torch.zeros(mask.shape, dtype=kept.dtype, device=kept.device).masked_scatter(mask, kept)

        if not self.then:
            return spread(tensors["values"])
        coded = {name: tensor for name, tensor in tensors.items() if name != "mask"}
        return self.inner.decode({**coded, "codes": spread(coded["codes"])})


#: what the payload of a grid is made of that a mask can stand before
_CODED = {"codes", "scale", "global_scale"}


def offered(inner: Sequence[Edit]) -> tuple[Sparse, ...]:
    """Shares and N:M as they are; where integers are on the menu, a few of them coded in 8 and 4 bits as well."""
    from secateur.parts.edits.int import Int

    plain = (*(Sparse(keep=share) for share in SHARES), *(Sparse(n=n, m=m) for n, m in N_OF_M))
    if not any(isinstance(edit, Int) for edit in inner):
        return plain
    then = [text(Int(bits, 128)) for bits in CODED]
    some = (*(Sparse(keep=share, then=one) for one in then for share in THINNED),)
    return (*plain, *some, *(Sparse(n=2, m=4, then=one) for one in then))
