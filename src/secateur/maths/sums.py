"""Running sums over tokens: two halves add up to the whole, whatever the order of batches, files or workers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: one matmul of this many columns or more goes through bfloat16 where the processor has tiles for it
_TILED = 256


@dataclass
class Gram:
    """The mean of `weight * x x'` over tokens, [width, width]; with `diagonal`, only its diagonal, [width].

    Summed in float32. On processors with matrix tiles the products of one batch are made in bfloat16: twice as fast,
    and its rounding (2^-9, unbiased) lies far below the sampling error of some 10,000 tokens.
    """

    total: Tensor
    tokens: int = 0
    diagonal: bool = False

    @classmethod
    def empty(cls, width: int, diagonal: bool = False, device: torch.device | str = "cpu") -> Gram:
        shape = (width,) if diagonal else (width, width)
        return cls(torch.zeros(shape, dtype=torch.float32, device=device), 0, diagonal)

    def update(self, x: Tensor, weight: Tensor | None = None) -> None:
        """Add tokens: `x` [tokens, width], `weight` [tokens]."""
        x = x.float()
        xw = x if weight is None else x * weight.float()[:, None]
        if self.diagonal:
            self.total += (xw * x).sum(0)
        elif x.shape[1] >= _TILED and x.device.type == "cpu" and tiles():
            self.total += (xw.mT.bfloat16() @ x.bfloat16()).float()
        else:
            self.total.addmm_(xw.mT, x)
        self.tokens += len(x)

    def __add__(self, other: Gram) -> Gram:
        return Gram(self.total + other.total, self.tokens + other.tokens, self.diagonal)

    def mean(self) -> Tensor:
        """The statistic, made symmetric against the rounding of its parts."""
        mean = self.total / max(self.tokens, 1)
        return mean if self.diagonal else (mean + mean.mT) / 2


@dataclass
class Spread:
    """Mean of a number per batch and the standard error of that mean: what the batches themselves say of the noise."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def update(self, x: float, weight: float | None = None) -> None:
        self.n, self.total, self.squares = self.n + 1, self.total + x, self.squares + x * x

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        return self.total / max(self.n, 1)

    @property
    def relative_error(self) -> float:
        """Standard error of the mean over the mean; 1 when there are too few batches to tell."""
        if self.n < 2 or self.mean == 0:
            return 1.0
        variance = max(self.squares / self.n - self.mean**2, 0.0) * self.n / (self.n - 1)
        return (variance / self.n) ** 0.5 / abs(self.mean)


def tiles() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32 (AMX tiles, or AVX-512's bfloat16 dot products)."""
    return any(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("amx_tile", "avx512_bf16"))
