"""Integers with a scale per group: symmetric (no zero point, the scale may be negative) and asymmetric."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import Coded


@dataclass(frozen=True)
class FittedAffine:
    """Values `(code - zero) * scale` with codes in [low, high]. Scales are exact in `dtype`, the file's."""

    scale: Tensor
    zero: Tensor | None
    low: int
    high: int
    group: int
    dtype: torch.dtype
    step: int = 1

    def snap(self, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        if zero is None:
            return (x / scale).round_().clamp_(self.low, self.high).mul_(scale)
        return (x / scale).round_().add_(zero).clamp_(self.low, self.high).sub_(zero).mul_(scale)

    def rescaled(self, scale: Tensor) -> FittedAffine:
        """The same grid with other scales [rows, groups], rounded to what the file can hold; zeros stay."""
        held = exact(scale, self.dtype).repeat_interleave(self.group, 1)
        return replace(self, scale=held[:, : self.scale.shape[1]])

    def code(self, values: Tensor) -> Coded:
        units = (values / self.scale).round()
        codes = units if self.zero is None else units + self.zero
        kind = torch.int8 if self.high < 128 else torch.int16
        tensors = {"codes": codes.to(kind), "scale": self.scale[:, :: self.group].to(self.dtype)}
        if self.zero is not None:
            tensors["zero"] = self.zero[:, :: self.group].to(kind)
        return Coded(units * self.scale, tensors)


def exact(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`scale` rounded to `dtype` and back to float32, never zero or infinite: the smallest normal number at least."""
    info = torch.finfo(dtype)
    least = info.smallest_normal if info.bits > 8 else info.smallest_normal / 8  # one byte: its subnormals are needed
    size = scale.abs().clamp(least, info.max)
    return torch.where(scale < 0, -size, size).to(dtype).float()


@dataclass(frozen=True)
class Affine:
    """`bits`-wide integers; one scale (and zero point) per `group` inputs of a row, 0 for the whole row.

    Symmetric codes run from -2^(b-1) to 2^(b-1) - 1 and the scale may be negative, so that the longer side of the grid
    lies where the weights need it: at 2 bits that is worth as much as a zero point, for nothing.
    """

    bits: int
    group: int = 128
    symmetric: bool = True
    dtype: torch.dtype = torch.float16

    def fit(self, w: Tensor, weight: Tensor | None = None) -> FittedAffine:
        """Scales that minimise the weighted squared error over a search of shrunk ranges (both signs when symmetric)."""
        rows, cols = w.shape
        group = self.group or cols
        x = w.float().reshape(rows, cols // group, group)
        m = torch.ones_like(x) if weight is None else weight.float().expand(rows, cols).reshape(x.shape)
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.symmetric else (0, 2**self.bits - 1)
        best = torch.full(x.shape[:2], torch.inf, device=w.device)
        scale, zero = torch.ones_like(best), torch.zeros_like(best)
        for s, z in self._candidates(x, low, high):
            s = exact(s, self.dtype)
            q = (x / s[..., None]).round_().add_(z[..., None]).clamp_(low, high).sub_(z[..., None]).mul_(s[..., None])
            error = q.sub_(x).square_().mul_(m).sum(-1)
            better = error < best
            best = torch.where(better, error, best)
            scale, zero = torch.where(better, s, scale), torch.where(better, z, zero)
        spread = [t.repeat_interleave(group, 1) for t in (scale, zero)]
        return FittedAffine(spread[0], None if self.symmetric else spread[1], low, high, group, self.dtype)

    def _candidates(self, x: Tensor, low: int, high: int):
        least = 0.35 if self.bits <= 2 else 0.5 if self.bits == 3 else 0.6 if self.bits == 4 else 0.8
        shares = torch.linspace(least, 1.0, 24 if self.bits <= 4 else 12).tolist()
        if self.symmetric:
            top, bottom = x.amax(-1), -x.amin(-1)
            zero = torch.zeros_like(top)
            for share in shares:
                for sign in (1.0, -1.0):
                    up, down = (top, bottom) if sign > 0 else (bottom, top)
                    yield sign * share * torch.maximum(up / high, down / -low).clamp_min(1e-12), zero
        else:
            top, bottom = x.amax(-1).clamp_min(0), x.amin(-1).clamp_max(0)
            for share in shares:
                s = (share * (top - bottom) / high).clamp_min(1e-12)
                for shift in (0.0, 0.5, -0.5) if self.bits <= 3 else (0.0,):
                    z = (-share * bottom / s + shift).round().clamp(0, high)
                    yield s, z

    def bits_total(self, rows: int, cols: int) -> float:
        groups = cols // (self.group or cols)
        each = torch.finfo(self.dtype).bits
        return rows * cols * self.bits + rows * groups * (each + (0 if self.symmetric else self.bits))
