"""Integers with a scale per group: symmetric (no zero point, the scale may be negative) and asymmetric."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..packing import packed_bytes
from . import Coded, Fitted


@dataclass(frozen=True)
class FittedAffine:
    """Values `(code - zero) * scale`, codes in [low, high]. Scales are exact in `dtype`, the file's; so are zeros."""

    scale: Tensor
    zero: Tensor | None
    low: int | Tensor
    high: int | Tensor
    group: int
    dtype: torch.dtype
    zeros: torch.dtype | None = None  # None: zero points are whole numbers
    step: int = 1

    @property
    def manner(self) -> Hashable:
        return "affine"  # whatever the range: `snap_together` sees to it

    @property
    def shift(self) -> Tensor | None:
        """The value of code 0, [rows, groups], where zeros are fractional."""
        if self.zero is None or self.zeros is None:
            return None
        return -self.zero[:, :: self.group] * self.scale[:, :: self.group]

    def ranged(self, low: Tensor, high: Tensor) -> FittedAffine:
        """The same with ranges of their own for the rows of what is snapped."""
        return replace(self, low=low, high=high)

    def snap(self, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        q = x / scale if zero is None else (x / scale).add_(zero)
        q = q.round_().clamp_(self.low, self.high)  # type: ignore[call-overload]  # two numbers, or two tensors
        return (q if zero is None else q.sub_(zero)).mul_(scale)

    def codes(self, values: Tensor) -> Tensor:
        q = values / self.scale
        return (q if self.zero is None else q + self.zero).round()

    def rescaled(self, scale: Tensor, shift: Tensor | None = None) -> FittedAffine:
        """The same grid with other scales, and zeros that put code 0 at `shift` (both [rows, groups]), as the file can
        hold them; whole-number zeros stay."""
        cols = self.scale.shape[1]
        scale = exact(scale, self.dtype)
        zero = self.zero
        if shift is not None and self.zeros is not None:
            zero = _spread(held(-shift / scale, self.zeros), self.group, cols)
        return replace(self, scale=_spread(scale, self.group, cols), zero=zero)

    def code(self, values: Tensor) -> Coded:
        codes = self.codes(values)
        kind = torch.int8 if self.high < 128 else torch.int16
        tensors = {"codes": codes.to(kind), "scale": self.scale[:, :: self.group].to(self.dtype)}
        if self.zero is not None:
            tensors["zero"] = self.zero[:, :: self.group].to(self.zeros or kind)
        return Coded((codes if self.zero is None else codes - self.zero) * self.scale, tensors)


def snap_together(grids: Sequence[Fitted], sizes: Sequence[int]) -> Callable[..., Tensor]:
    """One `snap` for tiles of several grids of one manner, so many (`sizes`) of each behind one another."""
    first: Any = grids[0]
    if not hasattr(first, "ranged") or len({(grid.low, grid.high) for grid in grids}) == 1:  # type: ignore[attr-defined]
        return first.snap
    many = torch.tensor(sizes, device=first.scale.device)
    low, high = (
        torch.tensor([float(getattr(grid, side)) for grid in grids], device=first.scale.device)
        .repeat_interleave(many)
        .unsqueeze(1)
        for side in ("low", "high")
    )
    return first.ranged(low, high).snap


def _spread(x: Tensor, group: int, cols: int) -> Tensor:
    return x.repeat_interleave(group, 1)[:, :cols]


def held(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` rounded to `dtype` and back to float32; what is too large becomes the largest."""
    most = torch.finfo(dtype).max
    return x.clamp(-most, most).to(dtype).float()


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
    lies where the weights need it: at 2 bits that is worth as much as a whole-number zero point, for nothing.
    `zeros` names the type of fractional zero points: they put the middle of the grid on the middle of the weights.
    """

    bits: int
    group: int = 128
    symmetric: bool = True
    dtype: torch.dtype = torch.float16
    zeros: torch.dtype | None = None
    rowwise: ClassVar[bool] = True

    def fit(self, w: Tensor, weight: Tensor | None = None) -> FittedAffine:
        """Scales that minimise the weighted squared error: a search over shrunk ranges, both signs when symmetric,
        then least squares on the codes found (Lloyd) where that helps. Ties go to the wider range."""
        rows, cols = w.shape
        group = self.group or cols
        x = w.float().reshape(rows, cols // group, group)
        m = torch.ones_like(x) if weight is None else weight.float().expand(rows, cols).reshape(x.shape).contiguous()
        # fractional zeros stand beside codes of both signs: small, where a byte is fine, and as files hold them
        low = -(2 ** (self.bits - 1)) if self.symmetric or self.zeros else 0
        high = low + 2**self.bits - 1
        best = torch.full(x.shape[:2], torch.inf, device=w.device)
        scale, zero = torch.ones_like(best), torch.zeros_like(best)

        def offer(s: Tensor, z: Tensor | None) -> Tensor:
            """Try scales and zeros on every group, keep them where they are better; the codes they give."""
            nonlocal best, scale, zero
            s = exact(s, self.dtype)
            q = x / s[..., None]
            if z is not None:
                z = held(z, self.zeros) if self.zeros else z.round().clamp(low, high)
                q += z[..., None]
            q = q.round_().clamp_(low, high)
            value = (q if z is None else q - z[..., None]) * s[..., None]
            error = (value - x).square_().mul_(m).sum(-1)
            better = error < best
            best, scale = torch.where(better, error, best), torch.where(better, s, scale)
            zero = zero if z is None else torch.where(better, z, zero)
            return q

        for s, z in self._ranges(x, low, high):
            q = offer(s, z)
            if self.bits <= 4:
                offer(*_least_squares(x, q, m, shifted=self.zeros is not None, zero=z))
        spread = [_spread(t, group, cols) for t in (scale, zero)]
        return FittedAffine(spread[0], None if self.symmetric else spread[1], low, high, group, self.dtype, self.zeros)

    def _ranges(self, x: Tensor, low: int, high: int):
        """Scales and zeros to try, from the whole range down."""
        least = {1: 0.2, 2: 0.3, 3: 0.5, 4: 0.65}.get(self.bits, 0.85)
        shares = torch.linspace(1.0, least, 6 if self.bits > 4 else 8).tolist()
        top, bottom = x.amax(-1), x.amin(-1)
        if self.symmetric:
            for share in shares:
                for sign in (1.0, -1.0):
                    up, down = (top, -bottom) if sign > 0 else (-bottom, top)
                    yield sign * share * torch.maximum(up / max(high, 1), down / -low).clamp_min(1e-12), None
        elif self.zeros:
            middle = x.mean(-1)
            for share in shares:
                s = (share * (top - bottom) / (high - low)).clamp_min(1e-12)
                for centre in (middle, (top + bottom) / 2):
                    yield s, (high + low) / 2 - centre / s
            # a group far from zero for its range, or of one value: no zero point reaches it, but the grid's end does
            yield torch.where(top > -bottom, top, bottom) / low, torch.zeros_like(top)
        else:
            top, bottom = top.clamp_min(0), bottom.clamp_max(0)
            for share in shares:
                s = (share * (top - bottom) / high).clamp_min(1e-12)
                for shift in (0.0, 0.5, -0.5) if self.bits <= 3 else (0.0,):
                    yield s, -share * bottom / s + shift

    def payload_bits(self, rows: int, cols: int) -> float:
        levels, scales = 2**self.bits, rows * (cols // (self.group or cols))
        bits = 8 * packed_bytes(rows * cols, levels) + scales * torch.finfo(self.dtype).bits
        if self.symmetric:
            return bits
        return bits + (scales * torch.finfo(self.zeros).bits if self.zeros else 8 * packed_bytes(scales, levels))


def _least_squares(x: Tensor, q: Tensor, m: Tensor, shifted: bool, zero: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The scale (and fractional zero) that fit codes `q` [rows, groups, group] best in the weights `m`."""
    if shifted:
        total = m.sum(-1).clamp_min(1e-30)
        xm, qm = (m * x).sum(-1) / total, (m * q).sum(-1) / total
        spread = (m * (q - qm[..., None]).square()).sum(-1)
        s = (m * (q - qm[..., None]) * x).sum(-1) / spread.clamp_min(1e-30)
        s = torch.where(s.abs() < 1e-12, torch.full_like(s, 1e-12), s)
        return s, qm - xm / s
    u = q if zero is None else q - zero.round()[..., None]
    s = (m * u * x).sum(-1) / (m * u * u).sum(-1).clamp_min(1e-30)
    return torch.where(s.abs() < 1e-12, torch.full_like(s, 1e-12), s), zero
