"""The scalar block types of ggml (Q4_0 to Q8_0, Q2_K to Q6_K, IQ4, MXFP4, TQ): every weight a number of its own.

The value of a weight is `level * scale - zero`, in this order and in float32, as every reader counts. Scales (and
offsets, where there are any) of the K types are whole numbers times one float16 for 256 weights. Rounding sees the
products only; what is stored stays beside them, so that a file holds exactly what was counted with.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from . import Coded, layout
from .blocks import row_bytes
from .search import search
from .shapes import SHAPES, Shape
from .stored import Stored


@dataclass(frozen=True)
class FittedScalars:
    """`stored` is what the file holds of scales and offsets; `scale` and `zero` [rows, cols] are made of it.

    `heed` [rows or 1, groups] says how much the weights of each group matter: other scales are held so that the
    groups that matter most come nearest.
    """

    shape: Shape
    scale: Tensor
    zero: Tensor | None
    stored: Stored
    heed: Tensor
    step: int = 1

    @classmethod
    def of(cls, shape: Shape, stored: Stored, heed: Tensor) -> FittedScalars:
        scale, zero = stored.spread(shape)
        return cls(shape, scale, zero, stored, heed)

    @property
    def group(self) -> int:
        return self.shape.group

    @property
    def manner(self) -> Hashable:
        return "scalars" if self.shape.even else self.shape.kind

    @property
    def low(self) -> int:
        return self.shape.low

    @property
    def high(self) -> int:
        return self.shape.high

    @property
    def zeros(self) -> torch.dtype | None:
        """Offsets may take any sixteenth or so: fractional, where the type has them."""
        return torch.float16 if self.shape.mins else None

    @property
    def shift(self) -> Tensor | None:
        """The value of level 0, [rows, groups], where the type has offsets."""
        return None if self.zero is None else -self.zero[:, :: self.group]

    def ranged(self, low: Tensor, high: Tensor) -> FittedScalars:
        """The same with ranges of their own for the rows of what is snapped."""
        return replace(self, shape=replace(self.shape, low=low, high=high))

    def snap(self, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        if zero is None:
            return self.shape.level_(x / scale).mul_(scale)
        return self.shape.level_((x + zero).div_(scale)).mul_(scale).sub_(zero)

    def codes(self, values: Tensor) -> Tensor:
        """The levels: whole numbers, or entries of the table."""
        x = values if self.zero is None else values + self.zero
        return self.shape.level_(x / self.scale)

    def rescaled(self, scale: Tensor, shift: Tensor | None = None) -> FittedScalars:
        """The same grid with scales (and offsets) near these [rows, groups], as the file can hold them."""
        zero = self.stored.products(self.shape)[1] if shift is None else -shift
        return self.of(self.shape, Stored.near(self.shape, scale, zero, self.heed), self.heed)

    def code(self, values: Tensor) -> Coded:
        levels = self.codes(values).contiguous()  # a matrix stored the other way round comes turned
        seen = levels * self.scale
        seen = seen if self.zero is None else seen - self.zero
        return Coded(seen, {"blocks": self.packed(self.shape.index(levels))})

    def packed(self, codes: Tensor) -> Tensor:
        """Codes [rows, cols], counted from 0, as the bytes of the file [rows, bytes]."""
        rows, cols = codes.shape
        fields = {"codes": codes.to(torch.uint8).view(-1, self.shape.weights), **self.stored.fields(self.shape)}
        return layout.write(self.shape.kind, fields).view(rows, row_bytes(self.shape.kind, cols))


@dataclass(frozen=True)
class Scalars:
    """The grid of one block type, by its name."""

    kind: str
    rowwise: ClassVar[bool] = True

    @property
    def bits(self) -> int:
        """Of a code, without scales."""
        return SHAPES[self.kind].bits

    @property
    def zeros(self) -> torch.dtype | None:
        """The number type of offsets, where there are any."""
        return torch.float16 if SHAPES[self.kind].mins else None

    def fit(self, w: Tensor, weight: Tensor | None = None) -> FittedScalars:
        shape = SHAPES[self.kind]
        return FittedScalars.of(shape, *search(shape, w, weight))

    def payload_bits(self, rows: int, cols: int) -> float:
        return 8.0 * rows * row_bytes(self.kind, cols)


def decode(kind: str, blocks: Tensor) -> Tensor:
    """What every reader makes of uint8 `blocks` [rows, bytes]: float32 [rows, cols]."""
    shape = SHAPES[kind]
    n_subs = 0 if shape.subs is None else shape.groups * (2 if shape.mins else 1)
    rows, size = len(blocks), row_bytes(kind, shape.weights)
    fields = layout.read(kind, blocks.reshape(-1, size), shape.weights, n_subs)
    scale, zero = Stored.read(shape, fields).spread(shape)
    values = shape.levels(fields["codes"]) * scale
    return (values if zero is None else values - zero).view(rows, -1)
