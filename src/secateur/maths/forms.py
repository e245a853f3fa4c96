"""Forms: ways to write a matrix that are chosen for the matrix as a whole, not number by number: a mask, a low rank.

A form stands where a grid stands (`edit.grid(dtype)`), and what rounds and what predicts damage ask it instead of
sweeping: it puts the matrix into its shape itself, in the same metric 1/2 tr(G E A E').
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from .settle import Settled


#: a level's family is what it holds of this; below it, levels are numbers of bits
FAMILY = 100


@runtime_checkable
class Form(Protocol):
    """One way to write a matrix, before any matrix is seen."""

    def settle(self, w: Tensor, a: Tensor, g: Tensor | None, sides: int) -> Settled:
        """`w` [rows, cols], float32 and finite, as the form can hold it. A is [cols, cols], G [rows, rows], its
        diagonal [rows] or None; `sides` 1 leaves G out while choosing, 0 leaves out all but the weights and A's
        diagonal. `Settled.grid.code(values)` gives the payload."""
        ...

    def losses(self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[Form]) -> list[float]:
        """The damage expected of each of `forms`, all of this one's class, on one matrix: what they share is computed
        once."""
        ...


@runtime_checkable
class Probed(Protocol):
    """A form that leaves probes: matrices in some of its shapes, whose damage is known, to correct the whole by."""

    @property
    def level(self) -> int:
        """Its family, one and more, times `FAMILY`, and the share that stays in hundredths."""
        ...

    def losses_and_probes(
        self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[Form]
    ) -> tuple[list[float], dict[int, tuple[float, Tensor]]]:
        """As `losses`; and by level the damage in the metric and the matrix."""
        ...


def is_form(grid: object) -> TypeGuard[Form]:
    """Whether this is a form, and not a grid of numbers."""
    return hasattr(grid, "settle")
