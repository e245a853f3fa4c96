"""Patterns: which masks there are, how many weights each keeps, and how a mask is written in whole numbers.

Any weights of the matrix, at a bit each; N of every M inputs, as one number of C(M, N); or whole tiles, at a bit each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from . import masks


@dataclass(frozen=True)
class Pattern:
    """The share `keep` of a matrix' tiles of `high` x `wide` weights (1 x 1: of its weights), or `n` of every `m`."""

    keep: float = 0.0
    n: int = 0
    m: int = 0
    high: int = 1
    wide: int = 1

    @property
    def share(self) -> float:
        """About the share of the weights that stays."""
        return self.n / self.m if self.m else self.keep

    @property
    def family(self) -> tuple[bool, int, int]:
        """Patterns of one family differ in how much they keep."""
        return bool(self.m), self.high, self.wide

    @property
    def levels(self) -> int:
        """How many different whole numbers a mask is written in."""
        return comb(self.m, self.n) if self.m else 2

    def shape(self, rows: int, cols: int) -> tuple[int, int]:
        """Of a mask as it is written."""
        return rows // self.high, cols // (self.m or self.wide)

    def kept(self, rows: int, cols: int) -> int:
        """Exactly how many weights stay."""
        high, wide = self.shape(rows, cols)
        if self.m:
            return high * wide * self.n
        return masks.count(self.keep, high * wide) * self.high * self.wide

    def mask(self, score: Tensor) -> Tensor:
        """Those with the highest scores, [rows, cols]."""
        if self.m:
            return masks.top(score, self.n, (1, self.m))
        scope = self.high, self.wide
        return masks.blocks(score, self.kept(*score.shape) // (self.high * self.wide), scope)

    def codes(self, mask: Tensor) -> Tensor:
        """The mask as it is written."""
        if not self.m:
            return mask[:: self.high, :: self.wide].to(torch.uint8)
        bits = (masks.tiled(mask, (1, self.m)) << torch.arange(self.m, device=mask.device)).sum(1)
        choices, at = _choices(self.n, self.m), torch.zeros(1 << self.m, dtype=torch.int16)
        at[[sum(1 << i for i in one) for one in choices]] = torch.arange(len(choices), dtype=torch.int16)
        return at.to(mask.device)[bits].view(len(mask), -1)

    def spread(self, codes: Tensor) -> Tensor:
        """The mask [rows, cols] that was written; with tensor operations alone, so that a graph can hold it."""
        if not self.m:
            return codes.bool().repeat_interleave(self.high, 0).repeat_interleave(self.wide, 1)
        table = [[i in one for i in range(self.m)] for one in _choices(self.n, self.m)]
        return torch.tensor(table, device=codes.device)[codes.long()].flatten(1)


@cache
def _choices(n: int, m: int) -> list[tuple[int, ...]]:
    return list(combinations(range(m), n))
