"""Low rank: two thin matrices in place of one, the best of all in the metric that prices every other edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.parts.edits import Part, kinds, must_share, payload_cost, read, text
from secateur.parts.edits.keep import Keep
from secateur.types import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.types import Edit, Matrix, Unit

#: shares of a matrix's numbers that menus offer
SHARES = (0.75, 0.6, 0.45, 0.35, 0.25, 0.15)
#: bits of the grids that menus offer for the factors
THEN = (3, 4, 5, 8)


@dataclass(frozen=True, repr=False)
class Rank:
    """Two factors with the share `keep` of the matrix's numbers between them; `then` is the edit that both are stored
    with, `""` as numbers of the model's own type.

    Bytes and multiplications both fall to `keep`. Each factor is stored with a row for every component: the left one
    [k, rows], the right one [k, cols].
    """

    keep: float
    then: str = ""

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        must_share("rank", self.keep, "0.25")
        if self.inner is not None and type(self.inner).__module__.rpartition(".")[2] in kinds():
            raise PlanError(
                f"`{self.then}` puts no numbers on a grid", "`then` is a grid, like then='int(bits=4, group=64)'"
            )

    @property
    def inner(self) -> Any:
        """How the factors are stored, None for plain numbers."""
        return read(self.then) if self.then else None

    def rank(self, rows: int, cols: int) -> int:
        from secateur.maths.lowrank import rank

        return rank(self.keep, rows, cols)

    def cost(self, unit: Unit) -> dict[str, float]:
        return payload_cost(self, unit)

    def numbers(self, matrix: Matrix) -> int:
        """How many numbers both factors hold."""
        return self.rank(matrix.rows, matrix.cols) * (matrix.rows + matrix.cols)

    def flops(self, matrix: Matrix) -> int:
        """Multiplications with additions for one input. Kernels and stacks of experts are put together again before
        they multiply, so that they save bytes alone."""
        return matrix.size if matrix.stored or matrix.index is not None else self.numbers(matrix)

    def refuses(self, unit: Unit) -> str | None:
        """Why a unit cannot have it, in words, or None."""
        for m in unit.matrices:
            if self.numbers(m) >= m.size:
                return f"a matrix of {m.rows} x {m.cols} has no rank so low that it saves anything"
            group = getattr(self.inner, "group", 0)
            if odd := next((n for n in (m.rows, m.cols) if group and n % group), 0):
                return f"factors of {odd} numbers do not divide into groups of {group}"
        return None

    def grid(self, dtype: str = "float16") -> Any:
        """A form and no grid: it is chosen for the matrix as a whole."""
        import torch

        from secateur.maths.lowrank import LowRank

        return LowRank(self.keep, self.inner and self.inner.grid(dtype), getattr(torch, dtype))

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        k = self.rank(rows, cols)
        if self.inner is None:
            return {"left": Part((k, rows)), "right": Part((k, cols))}
        sides = {"left": self.inner.payload(k, rows), "right": self.inner.payload(k, cols)}
        return {f"{side}_{name}": part for side, parts in sides.items() for name, part in parts.items()}

    def factors(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Both factors, [k, rows] and [k, cols]: a product with an input goes through the right one, then the left."""
        if self.inner is None:
            return tensors["left"].float(), tensors["right"].float()
        left, right = (
            self.inner.decode({name.removeprefix(side): x for name, x in tensors.items() if name.startswith(side)})
            for side in ("left_", "right_")
        )
        return left, right

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        left, right = self.factors(tensors)
        return left.mT @ right


def offered(inner: Sequence[Edit]) -> tuple[Rank, ...]:
    """Shares of the numbers, each plain and on one grid for every number of bits that pays: of the format's, the one in
    the middle."""
    by_bits: dict[int, list[Edit]] = {}
    for edit in inner:
        if not isinstance(edit, Keep) and getattr(edit, "bits", 0) in THEN and getattr(edit, "group", 0):
            by_bits.setdefault(edit.bits, []).append(edit)  # type: ignore[attr-defined]
    then = ["", *(text(some[(len(some) - 1) // 2]) for _, some in sorted(by_bits.items()))]
    return tuple(Rank(keep, one) for keep in SHARES for one in then)
