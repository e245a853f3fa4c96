"""Grids: which numbers exist. A grid is fitted to a matrix, then any rounder may snap weights onto it.

Three axes stay apart: the grid (here), the rounder that decides which of its numbers each weight gets
(`maths.rounding`), and the format that says how they lie on disk (`export`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Coded:
    """One matrix on its grid: `values` [rows, cols] as every reader will see them, and the payload by name."""

    values: Tensor
    tensors: dict[str, Tensor]

    def cpu(self) -> Coded:
        """The same where files are written from."""
        return Coded(self.values.cpu(), {name: tensor.cpu() for name, tensor in self.tensors.items()})


class Fitted(Protocol):
    """A grid with the scales of one matrix.

    `scale` and `zero` are spread over the matrix, [rows, cols] (or None), so that a rounder can cut them into tiles
    alike. `group` columns share a scale, and `step` columns are coded together: 1 for scalars. `zeros` is the number
    type of fractional zero points, where the grid has them. Grids may have a `manner`: those of one
    manner snap alike, whatever their scales, so that one `snap` serves tiles of several matrices.

    `snap(x, scale, zero)` gives values; it is elementwise for scalars. Where `step` columns make a cell, the last axis
    of `x` holds whole cells (one, a row, what comes), `scale` lies over it alike, with one number in a cell, and each
    cell gets the codebook entry nearest to it: `snap(x, scale, zero, weight)` with the squared errors of its parts
    weighed by `weight`, which broadcasts over `x` (None: alike).
    """

    @property
    def scale(self) -> Tensor: ...
    @property
    def zero(self) -> Tensor | None: ...
    @property
    def zeros(self) -> torch.dtype | None: ...
    @property
    def group(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def shift(self) -> Tensor | None:
        """The value of code 0, [rows, groups], where zeros are fractional."""
        ...

    # scalars need not take the weights: nobody hands them any
    snap: Callable[..., Tensor]

    def codes(self, values: Tensor) -> Tensor:
        """Which number of the grid each of `values` is, as float32."""
        ...

    def rescaled(self, scale: Tensor, shift: Tensor | None = None) -> Fitted:
        """The same grid with other scales (and, where zeros are fractional, other zeros), as the file can hold them."""
        ...

    def code(self, values: Tensor) -> Coded: ...


class Grid(Protocol):
    """Which numbers exist, before any matrix is seen.

    Those that fit and code every row on its own, payload included, say so by `rowwise = True`: a tall matrix is then
    rounded some rows at a time.
    """

    def fit(self, w: Tensor, weight: Tensor | None = None) -> Fitted:
        """Scales for `w` [rows, cols] that keep sum(weight * error^2) small; `weight` is [cols] or [rows, cols]."""
        ...

    def payload_bits(self, rows: int, cols: int) -> float:
        """Bits of the whole payload, scales and zeros included, each part packed into whole bytes."""
        ...
