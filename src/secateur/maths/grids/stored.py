"""What a file of ggml holds of scales and offsets: float16 numbers, and whole numbers that they are taken times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..packing import unpack_exponents
from .shapes import Shape

#: what the largest weight is taken times the unit, beside the largest whole number: shrunk and stretched a little
ENDS = (-0.9, -0.6, -0.3, 0.0, 0.3, 0.7, 1.5, 2.5)


@dataclass(frozen=True)
class Stored:
    """`d` and `m` [rows, blocks], exact in float16; `subs` and `mins` [rows, groups], whole; all as float32.

    scale = d * subs, zero = m * mins; what a type does not have is None.
    """

    d: Tensor
    subs: Tensor | None = None
    m: Tensor | None = None
    mins: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[Stored]) -> Stored:
        """Rows under rows."""
        columns = zip(*((part.d, part.subs, part.m, part.mins) for part in parts), strict=True)
        return cls(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]

    @classmethod
    def near(cls, shape: Shape, scale: Tensor, zero: Tensor | None, heed: Tensor) -> Stored:
        """What comes nearest to these scales and offsets [rows, groups], where it is heeded most."""
        if shape.kind == "mxfp4":
            return cls(torch.exp2(scale.abs().clamp_min(2.0**-126).log2().round().clamp(-126, 127)))
        if shape.subs is None:
            return cls(scale_of(shape, scale), None, None if zero is None else half(zero, True)).steady(shape)
        scale, heed = (t.unflatten(1, (-1, shape.groups)) for t in (scale, heed.expand_as(scale)))
        d, subs = multiples(scale, heed, *shape.subs)
        if zero is None:
            return cls(d, subs.flatten(1))
        zero = zero.unflatten(1, (-1, shape.groups))
        sign = torch.where((zero * heed).sum(-1, keepdim=True) < 0, -1.0, 1.0)
        m, mins = multiples((zero * sign).clamp_min(0) * sign, heed, 0, shape.mins, zero=True)
        return cls(d, subs.flatten(1), m, mins.flatten(1)).steady(shape)

    def steady(self, shape: Shape) -> Stored:
        """Scales so large beside the offsets that a value still tells its level."""
        if self.m is None:
            return self
        _, zero = self.products(shape)
        assert zero is not None
        least = zero.abs().unflatten(1, (-1, shape.groups)).amax(2) * 2.0**-18
        return replace(self, d=half(torch.where(self.d < 0, -1.0, 1.0) * torch.maximum(self.d.abs(), least)))

    @classmethod
    def read(cls, shape: Shape, fields: Mapping[str, Tensor]) -> Stored:
        """From what `layout` read, one block a row."""
        if shape.kind == "mxfp4":
            return cls(unpack_exponents(fields["d"]))
        m = (fields["m"].float() if shape.mins > 1 else -fields["m"].float()) if shape.mins else None
        if shape.subs is None:
            return cls(fields["d"].float(), None, m)
        subs, mins = fields["subs"][:, : shape.groups], fields["subs"][:, shape.groups :]
        return cls(fields["d"].float(), subs.float() + shape.subs[0], m, mins.float() if shape.mins else None)

    def fields(self, shape: Shape) -> dict[str, Tensor]:
        """As `layout` writes them, one block a row."""
        if shape.kind == "mxfp4":
            return {"d": (self.d.log2().round() + 127).to(torch.uint8).view(-1, 1)}
        out = {"d": self.d.half().view(-1, 1)}
        if self.m is not None:
            out["m"] = (self.m if shape.mins > 1 else -self.m).half().view(-1, 1)
        if self.subs is not None and shape.subs is not None:
            subs = [(self.subs - shape.subs[0]).view(-1, shape.groups)]
            subs += [] if self.mins is None else [self.mins.view(-1, shape.groups)]
            out["subs"] = torch.cat(subs, 1).to(torch.uint8)
        return out

    def products(self, shape: Shape) -> tuple[Tensor, Tensor | None]:
        """Scales and offsets of every group, as readers see them."""
        scale = self.d if self.subs is None else self.d.repeat_interleave(shape.groups, 1) * self.subs
        if self.m is None or self.mins is None:
            return scale, self.m
        return scale, self.m.repeat_interleave(shape.groups, 1) * self.mins

    def spread(self, shape: Shape) -> tuple[Tensor, Tensor | None]:
        """The same for every weight."""
        scale, zero = self.products(shape)
        return tuple(None if t is None else t.repeat_interleave(shape.group, 1) for t in (scale, zero))  # type: ignore[return-value]


def half(x: Tensor, zero: bool = False) -> Tensor:
    """Rounded to float16 and back to float32; what is too large becomes the largest, and nothing zero unless it may."""
    x = x.clamp(-65504.0, 65504.0)
    if not zero:
        x = torch.where(x.abs() < 2.0**-24, torch.where(x < 0, -(2.0**-24), 2.0**-24), x)
    return x.half().float()


def scale_of(shape: Shape, x: Tensor) -> Tensor:
    """Scales as float16: never zero, but where a grid without a level zero is to give nothing but zeros."""
    return half(x) if shape.even else torch.where(x == 0, 0.0, half(x))


def multiples(t: Tensor, w: Tensor, low: int, high: int, zero: bool = False) -> tuple[Tensor, Tensor]:
    """Numbers d [...] and whole numbers n [..., k], `low` to `high`, that keep sum(w (t - d n)^2) small.

    Without `zero` no n is zero.
    """
    most, least = t.amax(-1, keepdim=True), t.amin(-1, keepdim=True)
    top = torch.where(most >= -least, most, least)
    wt = w * t
    best = torch.full_like(top, -1.0)
    d, n = torch.ones_like(top), torch.zeros_like(t)
    for end in [high + by for by in ENDS] + ([low - by for by in ENDS] if low else []):
        unit = top / end
        k = (t / torch.where(unit.abs() < 1e-30, 1e-30, unit)).round_().clamp_(low, high)
        kt, kk = (wt * k).sum(-1, keepdim=True), (w * k * k).sum(-1, keepdim=True).clamp_min(1e-30)
        better = kt * kt / kk > best
        best = torch.where(better, kt * kt / kk, best)
        d, n = torch.where(better, kt / kk, d), torch.where(better, k, n)
    d = half(d, zero)
    if not zero:
        n = torch.where(n == 0, torch.where(t * d < 0, -1.0, 1.0) if low else 1.0, n)
    return d.squeeze(-1), n
