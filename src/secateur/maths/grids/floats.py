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
#: scales that are tried, as shares of the one that the largest number of a group asks for
SHARES = {"fp8": (1.0,), "mxfp4": (2.0, 1.0, 0.5), "nvfp4": (1.0, 1.5, 0.9, 0.8, 0.7)}
#: weights that are searched at a time: few enough for the caches
CHUNK = 1 << 17


def snap_fp4(x: Tensor) -> Tensor:
    """The nearest E2M1 number, float32, ties to even codes, beyond 6 to 6."""
    return _sized(x.abs()).copysign_(x)


def _sized(size: Tensor) -> Tensor:
    """Of magnitudes, in place. Steps are half the power of two below a number, and 0.5 below 1; added to a number
    whose last place is such a step, and taken away again, what is smaller than a step is rounded off."""
    size.clamp_(max=FP4_MAX)
    power = size.view(torch.int32).bitwise_and(0x7F800000).view(torch.float32)
    places = power.clamp_(min=1.0).mul_(2.0**22)
    return size.add_(places).sub_(places)


def snap_fp8(x: Tensor) -> Tensor:
    """The nearest E4M3 number; beyond 448 to 448."""
    return x.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).float()


def code_fp4(x: Tensor) -> Tensor:
    """E2M1 codes 0..15 of numbers that are E2M1 already; 8 is the sign."""
    # exponent and first place of a float32 count on from 1.0 = 254; 0.5 is 252, and whatever is below is 0
    code = x.abs().view(torch.int32).bitwise_right_shift_(22).clamp_(min=251).sub_(251)
    return code.sub_((code > 2).int()).add_(8 * (x < 0)).to(torch.uint8)


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
        m = torch.ones(1, cols, device=w.device) if weight is None else weight.float().reshape(-1, cols)
        globally = 1.0
        if self.kind == "nvfp4":  # the divisor form: the largest scale of all becomes 448
            globally = FP8_MAX * FP4_MAX / max(float(w.abs().max()), 1e-12)
        probe = FittedFloat(w, self.kind, self.group or cols, globally, self.dtype)
        step = max(1, CHUNK // cols)
        some = ((w[at : at + step].float(), m if len(m) == 1 else m[at : at + step]) for at in range(0, rows, step))
        scale = torch.cat([_searched(probe, x, heed) for x, heed in some])
        return replace(probe, scale=scale.repeat_interleave(probe.group, 1))

    def payload_bits(self, rows: int, cols: int) -> float:
        if self.kind == "fp8":
            return rows * cols * 8 + rows * torch.finfo(self.dtype).bits
        scales = rows * (cols // self.group)
        return 8 * packed_bytes(rows * cols, 16) + scales * 8 + (32 if self.kind == "nvfp4" else 0)


def _searched(probe: FittedFloat, w: Tensor, m: Tensor) -> Tensor:
    """The scales [rows, groups] of those that are tried which leave least of some rows, weights `m` for all or each."""
    x, m = (t.unflatten(1, (-1, probe.group)) for t in (w.abs(), m))
    top = x.amax(-1).clamp_min_(1e-12).div_(FP8_MAX if probe.kind == "fp8" else FP4_MAX)
    best = torch.full_like(top, torch.inf)
    scale = torch.ones_like(top)
    for share in SHARES[probe.kind]:
        s = stored_scale(share * top, probe.kind, probe.globally, probe.dtype)
        spread = s[..., None]
        near = probe.snap(x, spread, None) if probe.kind == "fp8" else _sized(x / spread).mul_(spread)
        error = near.sub_(x).square_().mul_(m).sum(-1)
        better = error < best
        best, scale = torch.where(better, error, best), torch.where(better, s, scale)
    return scale
