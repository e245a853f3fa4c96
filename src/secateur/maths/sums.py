"""Running sums over tokens: two halves add up to the whole, whatever the order of batches, files or workers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: one matmul of this many columns or more goes through bfloat16 where the processor has tiles for it
_TILED = 256
#: elsewhere the half above the diagonal is summed, in four bands; of this many columns or more that is a third faster
_WIDE = 512


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
            self._upper(xw, x)
        self.tokens += len(x)

    def _upper(self, xw: Tensor, x: Tensor) -> None:
        """The bands on and above the diagonal: what lies below is the same again, and `mean` puts it there."""
        width = len(self.total)
        step = -(-width // 4) if width >= _WIDE else max(width, 1)
        for start in range(0, width, step):
            self.total[start : start + step, start:].addmm_(xw[:, start : start + step].mT, x[:, start:])

    def __add__(self, other: Gram) -> Gram:
        return Gram(self.total + other.total, self.tokens + other.tokens, self.diagonal)

    def mean(self) -> Tensor:
        """The statistic, symmetric: what was summed above the diagonal stands below it as well."""
        if self.diagonal:
            return self.total / max(self.tokens, 1)
        mean = self.total.triu().div_(max(self.tokens, 1))
        return mean.add_(mean.triu(1).mT)


@dataclass
class Spread:
    """Mean of a number over batches, each counting by its `weight` (its tokens), and the standard error of that mean:
    what the batches themselves say of the noise."""

    n: int = 0
    weight: float = 0.0
    total: float = 0.0
    # sums of weight^2, of weight^2 times the number and times its square
    apart: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def update(self, x: float, weight: float | None = None) -> None:
        w = 1.0 if weight is None else weight
        one = Spread(1, w, w * x, (w * w, w * w * x, (w * x) ** 2))
        self.n, self.weight, self.total, self.apart = vars(self + one).values()

    def __add__(self, other: Spread) -> Spread:
        a, b = self.apart, other.apart
        apart = (a[0] + b[0], a[1] + b[1], a[2] + b[2])
        return Spread(self.n + other.n, self.weight + other.weight, self.total + other.total, apart)

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight else 0.0

    @property
    def relative_error(self) -> float:
        """Standard error of the mean over the mean; 1 when there are too few batches to tell."""
        if self.n < 2 or self.mean == 0:
            return 1.0
        w2, w2x, w2xx = self.apart
        squares = max(w2xx - 2 * self.mean * w2x + self.mean**2 * w2, 0.0)  # of what each adds to the mean, unscaled
        return (squares * self.n / (self.n - 1)) ** 0.5 / self.weight / abs(self.mean)


def tiles() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32 (AMX tiles, AVX-512's bfloat16 dot products)."""
    return any(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("amx_tile", "avx512_bf16"))
