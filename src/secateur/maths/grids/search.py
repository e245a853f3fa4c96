"""Scales of block grids by search: weighted least squares over scale and offset, as the file can hold them.

For given levels q the best scale and offset of a group, and what they explain, are known from sums over the group: of
mq, mqq and mxq, with weights m. So the search tries scales, takes the levels that each gives, and keeps the best that
these levels can do; it never looks at an error. Where on its range a grid begins counts as much as how wide it is: at
18 trials Q4_1 loses 12% less when half of them begin at each end of the weights than when all are about their middle.

Where scales are whole numbers of a float16 for their block, the neighbours of each number are then tried with the
levels that *they* give, and the float16 is fitted to all levels of the block.

Weights lie as [group, rows, groups], so that whatever goes over groups goes over whole vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .floats import Float
from .shapes import Shape
from .stored import Stored, half, multiples, scale_of

#: weights that are searched at a time: few enough for the caches
CHUNK = 1 << 17
#: what the range of a group is taken times, by bits: many bits want the whole range, and a few tries for luck
SHARES = {
    2: (0.4, 0.54, 0.68, 0.82, 0.96),
    3: (0.55, 0.63, 0.7, 0.77, 0.84, 0.91, 1.0),
    4: (0.7, 0.76, 0.82, 0.87, 0.92, 0.97, 1.02, 1.08),
    5: (0.82, 0.86, 0.9, 0.94, 0.97, 1.0, 1.03, 1.06),
    6: (0.94, 0.97, 1.0, 1.03),
    8: (1.0,),
}
#: and the mean size of the weights, for ternary levels: the range of 256 weights says little about them (six shares
#: instead of these two leave 0.08% less, in twice the time)
TERNARY = (1.3, 1.8)


def search(shape: Shape, w: Tensor, weight: Tensor | None) -> tuple[Stored, Tensor]:
    """Scales for `w` [rows, cols] in the weights [cols] or [rows, cols], and how much each group matters."""
    rows, cols = w.shape
    if cols % shape.weights:
        raise ValueError(f"rows of {cols} weights are not whole blocks of {shape.weights}")
    m = torch.ones(1, cols, device=w.device) if weight is None else weight.float().reshape(-1, cols)
    m = m / m.mean(1, keepdim=True).clamp_min(1e-30) + 1e-8  # a group that nobody hears is fitted all the same
    heed = m.unflatten(1, (-1, shape.group)).sum(2)
    if shape.kind == "mxfp4":
        return Stored(Float("mxfp4").fit(w, m).scale[:, :: shape.group]), heed
    parts = []
    step = max(1, CHUNK // cols)
    for at in range(0, rows, step):
        group = Group.of(shape, w[at : at + step], m if len(m) == 1 else m[at : at + step])
        parts.append(_whole(group, _best(group)))
    return Stored.joined(parts), heed


@dataclass(frozen=True)
class Group:
    """Weights `x` [group, rows, groups], how much each matters, and sums that no trial changes. Ternary levels do the
    same on both sides of zero: there `x` are magnitudes."""

    shape: Shape
    x: Tensor
    m: Tensor  # rows may be one for all
    mx: Tensor
    total: Tensor
    sx: Tensor

    @classmethod
    def of(cls, shape: Shape, w: Tensor, m: Tensor) -> Group:
        x, m = (t.float().unflatten(1, (-1, shape.group)).permute(2, 0, 1).contiguous() for t in (w, m))
        x = x.abs() if shape.ternary else x
        mx = m * x
        return cls(shape, x, m, mx, m.sum(0), mx.sum(0))

    def sums(self, scale: Tensor, zero: Tensor | None) -> Sums:
        """With the levels that a scale and an offset give."""
        if self.shape.ternary:
            q = (self.x > scale / 2).float()
            return Sums((self.mx * q).sum(0), None, q.mul_(self.m).sum(0))
        if zero is None:
            q = self.shape.level_(self.x / scale)
            return Sums((self.mx * q).sum(0), None, q.square_().mul_(self.m).sum(0))
        q = self.shape.level_((self.x + zero).div_(scale))
        mq = self.m * q
        return Sums((self.mx * q).sum(0), mq.sum(0), mq.mul_(q).sum(0))

    def blocks(self, t: Tensor) -> Tensor:
        """[rows, groups] as [rows, blocks, groups of a block]."""
        return t.unflatten(-1, (-1, self.shape.groups))


class Sums(NamedTuple):
    """Over the weights of each group: of m x q, m q and m q q."""

    xq: Tensor
    q: Tensor | None
    qq: Tensor


class Found(NamedTuple):
    """Scales (and offsets) of all groups; `gain` is how much of sum(m x x) they explain, `curve` how much of it hangs
    on the scale."""

    gain: Tensor
    scale: Tensor
    zero: Tensor | None
    curve: Tensor


def _better(a, b):
    """Group by group, whichever has the larger first entry."""
    where = b[0] > a[0]
    return type(a)(*(x if x is None else torch.where(where, y, x) for x, y in zip(a, b, strict=True)))


# scales and offsets as any number


def _best(group: Group) -> Found:
    """The best of all trials, and of the scales that fit its levels once more."""
    best: Found | None = None
    for scale, zero in _trials(group):
        now = _solved(group, group.sums(scale, zero))
        best = now if best is None else _better(best, now)
    assert best is not None
    again = _solved(group, group.sums(torch.where(best.scale.abs() < 1e-20, 1e-20, best.scale), best.zero))
    return _better(best, again)


def _trials(group: Group):
    """Scales and offsets that give levels worth a look."""
    shape = group.shape
    if shape.ternary:
        mean = (group.sx / group.total).clamp_min(1e-20)
        yield from ((share * mean, None) for share in TERNARY)
        return
    heard = group.m > 1e-4 * group.total / shape.group  # what hardly counts shall not decide the range
    x = torch.where(heard, group.x, group.sx / group.total)
    top, bottom = x.amax(0), x.amin(0)
    if shape.mins:
        reach = (top - bottom).clamp_min(1e-20)
        for share in SHARES[shape.bits]:
            scale = reach * (share / shape.high)
            yield scale, -bottom
            yield scale, scale * shape.high - top
            if shape.bits == 2:
                yield scale, (scale * shape.high - top - bottom) / 2
    else:
        for sign, up, down in ((1.0, top, -bottom), (-1.0, -bottom, top)):
            if sign > 0 or shape.low != -shape.high:
                reach = torch.maximum(up / shape.high, down / -shape.low).clamp_min(1e-20)
                yield from ((sign * share * reach, None) for share in SHARES[shape.bits])


def _solved(group: Group, sums: Sums) -> Found:
    """Scale and offset that suit the levels best. Offsets that are whole numbers of the block's have its sign."""
    xq, q, qq = sums
    alone = xq / qq.clamp_min(1e-30)
    if q is None:
        return Found(alone * xq, alone, None, qq)
    spread = torch.maximum(qq - q * q / group.total, 1e-5 * qq).clamp_min(1e-30)  # below is but rounding
    scale = ((xq - group.sx * q / group.total) / spread).clamp_min(0)
    zero = (scale * q - group.sx) / group.total
    gain = group.sx * group.sx / group.total + scale * scale * spread
    if group.shape.mins > 1:
        wrong = zero * _sign(group) < 0
        zero, scale = torch.where(wrong, 0.0, zero), torch.where(wrong, alone, scale)
        gain = torch.where(wrong, alone * xq, gain)
    return Found(gain, scale, zero, torch.maximum(spread, 1e-3 * qq))


def _sign(group: Group) -> Tensor:
    """Offsets go down from zero, or up where all weights of a block are above it."""
    above = group.blocks(group.x.amin(0)).amin(-1, keepdim=True) > 0
    return torch.where(above, -1.0, 1.0).expand(*above.shape[:-1], group.shape.groups).flatten(-2)


# scales and offsets as the file holds them


class Whole(NamedTuple):
    """Whole numbers of all groups, and the sums of the levels that they give."""

    gain: Tensor
    subs: Tensor
    mins: Tensor | None
    xq: Tensor
    q: Tensor | None
    qq: Tensor


def _whole(group: Group, best: Found) -> Stored:
    """What comes nearest to the best in the file, and is best there."""
    shape = group.shape
    if shape.subs is None:
        d = scale_of(shape, best.scale)
        if best.zero is None:
            return Stored(d)
        sums = group.sums(d, best.zero)
        assert sums.q is not None
        return Stored(d, m=half((d * sums.q - group.sx) / group.total, True)).steady(shape)
    d, subs = multiples(group.blocks(best.scale), group.blocks(best.curve), *shape.subs)
    m = mins = None
    if best.zero is not None:
        total = group.total.expand_as(best.zero)
        m, mins = multiples(group.blocks(best.zero), group.blocks(total), 0, shape.mins, zero=True)
    at = Stored(d, subs.flatten(1), m, None if mins is None else mins.flatten(1))
    for nudges in ((0, 1, -1), (0,)) if shape.bits == 2 else ((0,), (0,)):
        at = _refitted(group, at, _neighbours(group, at, nudges))
    return at.steady(shape)


def _neighbours(group: Group, at: Stored, nudges: tuple[int, ...]) -> Whole:
    """Of the whole numbers beside those `at` hand, the ones whose levels leave least."""
    shape = group.shape
    assert shape.subs is not None and at.subs is not None
    d = at.d.repeat_interleave(shape.groups, 1)
    best: Whole | None = None
    for step in (0, -1, 1):
        subs = (at.subs + step).clamp(*shape.subs)
        subs = torch.where(subs == 0, torch.where(at.subs < 0, -1.0, 1.0), subs)  # level 0 does what scale 0 would
        scale = d * subs
        for nudge in nudges:
            now = _offset(group, at, scale, subs, nudge)
            best = now if best is None else _better(best, now)
    assert best is not None
    return best


def _offset(group: Group, at: Stored, scale: Tensor, subs: Tensor, nudge: int) -> Whole:
    """What these scales explain, with the best whole offsets for the levels that they give."""
    if at.m is None or at.mins is None:
        xq, _, qq = group.sums(scale, None)
        return Whole(scale * (2 * xq - scale * qq), subs, None, xq, None, qq)
    m = at.m.repeat_interleave(group.shape.groups, 1)
    xq, q, qq = group.sums(scale, m * (at.mins + nudge).clamp(0, group.shape.mins))
    assert q is not None
    wanted = (scale * q - group.sx) / group.total
    mins = torch.where(m == 0, 0.0, wanted / m).round_().clamp_(0, group.shape.mins)
    zero = m * mins
    gain = scale * (2 * xq - scale * qq) - zero * (2 * group.sx - 2 * scale * q + zero * group.total)
    return Whole(gain, subs, mins, xq, q, qq)


def _refitted(group: Group, at: Stored, whole: Whole) -> Stored:
    """The float16 of every block by least squares, for the whole numbers and levels there are."""
    shape = group.shape
    subs, xq, qq = (group.blocks(t) for t in (whole.subs, whole.xq, whole.qq))
    aa, ax = (subs * subs * qq).sum(-1), (subs * xq).sum(-1)
    if at.m is None or whole.mins is None or whole.q is None:
        return Stored(scale_of(shape, ax / aa.clamp_min(1e-30)), whole.subs)
    mins, q = group.blocks(whole.mins), group.blocks(whole.q)
    total, sx = (group.blocks(t.expand_as(whole.q)) for t in (group.total, group.sx))
    ab, bb, bx = (subs * mins * q).sum(-1), (mins * mins * total).sum(-1), (mins * sx).sum(-1)

    def gain(d: Tensor, m: Tensor) -> Tensor:
        return d * (2 * ax - d * aa) - m * (2 * bx - 2 * d * ab + m * bb)

    left = (aa * bb - ab * ab).clamp_min(1e-30)
    d, m = half((ax * bb - bx * ab) / left), half((ax * ab - bx * aa) / left, True)
    better = (d > 0) & (m * at.m >= 0) & (gain(d, m) > gain(at.d, at.m))  # where one of both cannot be told, none is
    return Stored(torch.where(better, d, at.d), whole.subs, torch.where(better, m, at.m), whole.mins)
