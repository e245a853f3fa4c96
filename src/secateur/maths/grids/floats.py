"""Small floating-point numbers with shared scales: FP8 by row, MXFP4 (OCP MX) and NVFP4 by small groups."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..packing import packed_bytes
from . import Coded

#: the magnitudes of E2M1, by code
FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
FP4_MAX, FP8_MAX = 6.0, 448.0


def snap_fp4(x: Tensor) -> Tensor:
    """The nearest E2M1 number, ties to even codes, beyond 6 to 6."""
    size = x.abs()
    # the step is 0.5 below 2, 1 below 4 and 2 above; ties go to even multiples, which are the even codes
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return ((size / step).round() * step).clamp_(max=FP4_MAX).copysign(x)


def snap_fp8(x: Tensor) -> Tensor:
    """The nearest E4M3 number; beyond 448 to 448."""
    return x.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).float()


def code_fp4(x: Tensor) -> Tensor:
    """E2M1 codes 0..15 of numbers that are E2M1 already; 8 is the sign."""
    levels = torch.tensor(FP4, device=x.device)
    return (torch.bucketize(x.abs(), levels - 0.01) - 1 + 8 * (x < 0)).to(torch.uint8)


@dataclass(frozen=True)
class FittedFloat:
    """Values `level * scale`, level an FP8 or FP4 number; `kind` says how scales are stored."""

    scale: Tensor
    kind: str  # "fp8", "mxfp4" or "nvfp4"
    group: int
    globally: float = 1.0  # nvfp4: stored scales are divided by this
    dtype: torch.dtype = torch.float16
    zero: None = None
    zeros: None = None
    shift: None = None
    step: int = 1

    @property
    def manner(self) -> Hashable:
        return self.kind == "fp8"

    def snap(self, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        return (snap_fp8 if self.kind == "fp8" else snap_fp4)(x / scale) * scale

    def codes(self, values: Tensor) -> Tensor:
        """The levels; a number of the small type, up to the rounding of one division."""
        return (snap_fp8 if self.kind == "fp8" else snap_fp4)(values / self.scale)

    def rescaled(self, scale: Tensor, shift: Tensor | None = None) -> FittedFloat:
        held = stored_scale(scale, self.kind, self.globally, self.dtype)
        return replace(self, scale=held.repeat_interleave(self.group, 1)[:, : self.scale.shape[1]])

    def code(self, values: Tensor) -> Coded:
        levels, scale = self.codes(values), self.scale[:, :: self.group]
        if self.kind == "fp8":
            tensors = {"codes": levels.to(torch.float8_e4m3fn), "scale": scale.to(self.dtype)}
        elif self.kind == "mxfp4":
            tensors = {"codes": code_fp4(levels), "scale": (scale.log2().round() + 127).to(torch.uint8)}
        else:
            tensors = {
                "codes": code_fp4(levels),
                "scale": (scale * self.globally).to(torch.float8_e4m3fn),
                "global_scale": torch.tensor([self.globally], dtype=torch.float32),
            }
        return Coded(levels * self.scale, tensors)


def stored_scale(scale: Tensor, kind: str, globally: float, dtype: torch.dtype) -> Tensor:
    """What the file can hold of positive scales, float32: any (fp8), powers of two (mxfp4), E4M3 / global (nvfp4)."""
    scale = scale.abs()
    if kind == "mxfp4":
        return torch.exp2(scale.clamp_min(2.0**-126).log2().round().clamp(-126, 127))
    if kind == "nvfp4":
        stored = (scale * globally).clamp(2.0**-9, FP8_MAX).to(torch.float8_e4m3fn).float()
        return stored / stored.new_tensor(globally)  # by a plain number CUDA would multiply by 1 / it: an ulp off
    info = torch.finfo(dtype)
    return scale.clamp(info.smallest_normal, info.max).to(dtype).float()


@dataclass(frozen=True)
class Float:
    """FP8 with one scale a row ("fp8"), FP4 with a power of two per 32 ("mxfp4") or with E4M3 per 16 ("nvfp4")."""

    kind: str
    dtype: torch.dtype = torch.float16

    @property
    def group(self) -> int:
        return {"fp8": 0, "mxfp4": 32, "nvfp4": 16}[self.kind]

    @property
    def rowwise(self) -> bool:
        return self.kind != "nvfp4"  # one number for the whole matrix

    def fit(self, w: Tensor, weight: Tensor | None = None) -> FittedFloat:
        """Scales by search: the range on the largest number, and shrunk steps below it (FP4 gains, FP8 hardly)."""
        rows, cols = w.shape
        group = self.group or cols
        x = w.float().reshape(rows, cols // group, group)
        m = torch.ones_like(x) if weight is None else weight.float().expand(rows, cols).reshape(x.shape)
        globally = 1.0
        if self.kind == "nvfp4":  # the divisor form: the largest scale of all becomes 448
            globally = FP8_MAX * FP4_MAX / max(float(w.abs().max()), 1e-12)
        most = FP8_MAX if self.kind == "fp8" else FP4_MAX
        best = torch.full(x.shape[:2], torch.inf, device=w.device)
        scale = torch.ones_like(best)
        probe = FittedFloat(scale, self.kind, group, globally, self.dtype)
        shares = (
            (1.0,) if self.kind == "fp8" else (2.0, 1.0, 0.5) if self.kind == "mxfp4" else (1.0, 1.5, 0.9, 0.8, 0.7)
        )
        for share in shares:
            s = stored_scale(share * x.abs().amax(-1).clamp_min(1e-12) / most, self.kind, globally, self.dtype)
            spread = s[..., None]
            error = (probe.snap(x, spread, None) - x).square_().mul_(m).sum(-1)
            better = error < best
            best, scale = torch.where(better, error, best), torch.where(better, s, scale)
        return replace(probe, scale=scale.repeat_interleave(group, 1))

    def payload_bits(self, rows: int, cols: int) -> float:
        if self.kind == "fp8":
            return rows * cols * 8 + rows * torch.finfo(self.dtype).bits
        scales = rows * (cols // self.group)
        return 8 * packed_bytes(rows * cols, 16) + scales * 8 + (32 if self.kind == "nvfp4" else 0)
