"""What the scalar block types of ggml are made of: levels, groups, and how their scales and offsets are held."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .blocks import block_weights
from .floats import FP4, code_fp4, snap_fp4

#: the levels of IQ4, by code: closer together around zero, as weights are
NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True)
class Shape:
    """Levels `low` to `high` (or those of a table, or of FP4), the same scale for `group` weights.

    `subs` is the range of the whole numbers that a scale is of its block's float16; None where it is that number
    itself. `mins` is the largest whole number that an offset is of its block's second float16, 1 where it is that
    number itself, 0 where there are no offsets.
    """

    kind: str
    group: int
    low: Any  # a whole number; a tensor where matrices of several types are swept together
    high: Any
    subs: tuple[int, int] | None = None
    mins: int = 0

    @property
    def weights(self) -> int:
        """Weights in a block."""
        return block_weights(self.kind)

    @property
    def groups(self) -> int:
        """Groups in a block."""
        return self.weights // self.group

    @property
    def bits(self) -> int:
        """Of a code."""
        return (self.high - self.low).bit_length() if self.even else 4

    @property
    def first(self) -> int:
        """The level that code 0 stands for."""
        return -128 if self.kind == "q8_0" else self.low

    @property
    def even(self) -> bool:
        """Whether levels are whole numbers at even distances."""
        return not self.kind.startswith(("iq4", "mxfp4"))

    @property
    def ternary(self) -> bool:
        return self.kind.startswith("tq")

    def level_(self, x: Tensor) -> Tensor:
        """The nearest level of each number, in place where that is possible."""
        if self.even:
            return x.round_().clamp_(self.low, self.high)
        return snap_fp4(x) if self.kind == "mxfp4" else nonlinear(x)

    def index(self, levels: Tensor) -> Tensor:
        """Codes from 0, as the file counts them."""
        if self.even:
            return levels - self.first
        return code_fp4(levels) if self.kind == "mxfp4" else torch.bucketize(levels, _table(levels.device)[1])

    def levels(self, codes: Tensor) -> Tensor:
        """And back, in float32."""
        if self.even:
            return codes.float() + self.first
        if self.kind == "mxfp4":
            sizes = torch.tensor(FP4, device=codes.device)
            return torch.cat((sizes, -sizes))[codes.long()]
        return _table(codes.device)[0][codes.long()]


SHAPES = {
    shape.kind: shape
    for shape in (
        Shape("q4_0", 32, -8, 7),
        Shape("q4_1", 32, 0, 15, mins=1),
        Shape("q5_0", 32, -16, 15),
        Shape("q5_1", 32, 0, 31, mins=1),
        Shape("q8_0", 32, -127, 127),
        Shape("q2_k", 16, 0, 3, (0, 15), 15),
        Shape("q3_k", 16, -4, 3, (-32, 31)),
        Shape("q4_k", 32, 0, 15, (0, 63), 63),
        Shape("q5_k", 32, 0, 31, (0, 63), 63),
        Shape("q6_k", 16, -32, 31, (-128, 127)),
        Shape("iq4_nl", 32, -127, 113),
        Shape("iq4_xs", 32, -127, 113, (-32, 31)),
        Shape("mxfp4", 32, -6, 6),
        Shape("tq1_0", 256, -1, 1),
        Shape("tq2_0", 256, -1, 1),
    )
}


@cache
def _table(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The levels of IQ4, the middles between them, and the nearest level of every half step from -128 to 127.5."""
    levels = torch.tensor(NONLINEAR, dtype=torch.float32, device=device)
    middles = (levels[1:] + levels[:-1]) / 2
    steps = torch.arange(-256, 256, device=device) / 2 + 0.25
    return levels, middles, levels[torch.bucketize(steps, middles)]


def nonlinear(x: Tensor) -> Tensor:
    """The nearest level of IQ4. All middles are multiples of a half, so a half step knows its level."""
    near = (x * 2).floor_().clamp_(-256, 255).nan_to_num_(0).add_(256)  # nothing times a scale of nothing
    return _table(x.device)[2][near.int()]
