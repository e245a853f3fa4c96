"""Sparse matrices as a form: a mask of some pattern, and what stays refitted, as numbers or on a grid.

A grid is fitted to the weights that stay alone, and error feedback then goes over the whole matrix: `Pinned` holds what
is gone at zero, and its errors are made up for like any others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .factor import damped
from .grids import Coded
from .grids.affine import held
from .patterns import Pattern
from .pruning import DAMP, Scene
from .rounding import damage, nearest
from .scores import height, wanda
from .settle import Settled, settle

#: how the logarithm of what refitting leaves (its damage as a share of plain pruning's) grows as less is kept, from
#: none at half to one at a fifth: the same curve on all matrices of `lm-small`, where 0.08 to 0.47 are left at half
CURVE = ((0.05, 2.37), (0.1, 1.73), (0.2, 1.0), (0.3, 0.55), (0.4, 0.23), (0.5, 0.0), (0.7, -0.29), (0.9, -0.47))
#: what that one is where nothing was measured at a fifth
RISE = 0.67
#: turns and steps of the search where only the damage is asked for, and the share of its damage that a full one leaves
QUICK, LEFT = (12, 10), 0.9
#: the share of plain rounding that error feedback leaves on the weights that stay: 0.4 to 1 on `lm-small`
ROUNDED = 0.75


@dataclass(frozen=True)
class Sparse:
    """Weights in a `pattern`, as numbers of type `dtype`, or on `grid` where there is one (it has no zero points)."""

    pattern: Pattern
    dtype: torch.dtype = torch.float16
    grid: Any = None

    def settle(self, w: Tensor, a: Tensor, g: Tensor | None, sides: int) -> Settled:
        """Who stays is searched and refitted in the metric; `sides` 0 takes Wanda's and leaves them as they are."""
        if sides:
            scene = Scene.of(w, a, g if sides == 2 else None)
            mask, values = scene.pruned(self.pattern.mask)
        else:
            mask = self.pattern.mask(wanda(w, a).square())
            values = w * mask
        if self.grid is None:
            kept = Kept(self.pattern, mask, self.dtype)
            values = held(values, self.dtype)
        else:
            done = settle(values, PinnedGrid(self.grid, mask), a, g, sides=sides)
            kept, values = Kept(self.pattern, mask, self.dtype, done.grid.inner), done.values
        return Settled(values, kept, float(damage(w - values, *_damped(a, g))))

    @property
    def level(self) -> int:
        return (200 if self.pattern.m else 100) + round(100 * self.pattern.share)

    def losses(self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[Any]) -> list[float]:
        return self.losses_and_probes(w, a, g, forms)[0]

    def losses_and_probes(
        self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[Any]
    ) -> tuple[list[float], dict[int, tuple[float, Tensor]]]:
        """A quick search or two for every family of patterns; other levels by what they would damage plainly.

        What was found of weights and of N:M is left as probes.
        """
        if g is not None and not bool((g != 0).any()):
            return [0.0] * len(forms), {}
        scene = Scene.of(w, a, g)
        score = 0.5 * scene.scaled.square()
        plain = {form.pattern: float((score * ~form.pattern.mask(score)).sum()) for form in forms}
        out: dict[Pattern, float] = {}
        probes: dict[int, tuple[float, Tensor]] = {}
        for some in _families(plain).values():
            known = {}
            for pattern in _measured(some):
                values = scene.pruned(pattern.mask, *QUICK)[1]
                found = scene.damage(values)
                known[pattern.share] = LEFT * found / max(plain[pattern], 1e-30)
                if pattern.high == pattern.wide == 1:
                    probes[Sparse(pattern).level] = found, values
            out |= {pattern: plain[pattern] * _left(known, pattern.share) for pattern in some}
        rounded = {form: out[form.pattern] + _rounding(scene, score, form) for form in forms}
        return [rounded[form] for form in forms], probes


def _families(patterns: Iterable[Pattern]) -> dict[Any, list[Pattern]]:
    found: dict[Any, list[Pattern]] = {}
    for pattern in patterns:
        found.setdefault(pattern.family, []).append(pattern)
    return found


def _measured(some: Sequence[Pattern]) -> list[Pattern]:
    """Those of a family on which the search is tried: the nearest to half, and to a fifth where that is another."""
    near = [min(some, key=lambda pattern: (abs(pattern.share - share), pattern.share)) for share in (0.5, 0.2)]
    return near if near[1].share < near[0].share - 0.15 else near[:1]


def _left(known: dict[float, float], share: float) -> float:
    """What refitting leaves at any share, along `CURVE` through what is known at one or two."""
    (x, y), *more = sorted(known.items(), reverse=True)
    rise = RISE
    if more and min(y, more[0][1]) > 0:
        rise = max(math.log(more[0][1] / y) / (_curve(more[0][0]) - _curve(x)), 0.0)
    return y * math.exp(rise * (_curve(share) - _curve(x)))


def _curve(share: float) -> float:
    """`CURVE` at any share, straight between its points and beyond them."""
    at = max(1, min(sum(x < share for x, _ in CURVE), len(CURVE) - 1))
    (x, y), (x1, y1) = CURVE[at - 1], CURVE[at]
    return y + (y1 - y) * (share - x) / (x1 - x)


def _rounding(scene: Scene, score: Tensor, form: Sparse, rows: int = 32) -> float:
    """What the grid adds: plain errors of those that stay, on some rows, times what feedback leaves of them."""
    if form.grid is None:
        return 0.0
    step = max(1, len(score) // rows)
    mask = form.pattern.mask(score)
    w, stays = scene.w[::step], mask[::step]
    weight = stays * scene.a.diagonal()
    x = w * stays
    error = (x - nearest(x, form.grid.fit(x, weight), scene.a.diagonal())).square() * weight
    heard = height(scene.w, scene.g)
    part = 0.5 * float((error.sum(1) * heard[::step]).sum())
    return ROUNDED * part * float(heard.sum() / heard[::step].sum().clamp_min(1e-30))


def _damped(a: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The factors that every way of settling counts its damage in."""
    return damped(a.double(), DAMP).float(), damped(g.double(), DAMP).float() if g is not None and g.ndim == 2 else g


@dataclass(frozen=True)
class Kept:
    """A mask and how what it keeps is written: as it is, or on a fitted grid."""

    pattern: Pattern
    mask: Tensor
    dtype: torch.dtype
    inner: Any = None

    def code(self, values: Tensor) -> Coded:
        tensors = {"mask": self.pattern.codes(self.mask)}
        if self.inner is None:
            values = held(values, self.dtype) * self.mask
            return Coded(values, tensors | {"values": values[self.mask].to(self.dtype)})
        coded = self.inner.code(values)
        codes = coded.tensors["codes"]
        tensors |= {**coded.tensors, "codes": codes[self.mask]}
        return Coded(coded.values * self.mask, tensors)


@dataclass(frozen=True)
class PinnedGrid:
    """A grid whose numbers are for the weights under `mask`; all others are zero."""

    grid: Any
    mask: Tensor

    @property
    def bits(self) -> int:
        return getattr(self.grid, "bits", 8)

    def fit(self, w: Tensor, weight: Tensor | None = None) -> Pinned:
        heed = self.mask * (1.0 if weight is None else weight)
        return Pinned.of(self.grid.fit(w, heed.to(w)), self.mask)


@dataclass(frozen=True)
class Pinned:
    """A fitted grid under a mask: `scale` is zero where a weight is gone, which is how a snap knows."""

    inner: Any
    mask: Tensor
    scale: Tensor
    step: int = 1
    zero: None = None
    zeros: None = None
    shift: None = None

    @classmethod
    def of(cls, inner: Any, mask: Tensor) -> Pinned:
        return cls(inner, mask, inner.scale * mask)

    @property
    def group(self) -> int:
        return self.inner.group

    def snap(self, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        gone = scale == 0
        return torch.where(gone, 0.0, self.inner.snap(x, torch.where(gone, 1.0, scale), None))

    def codes(self, values: Tensor) -> Tensor:
        return self.inner.codes(values) * self.mask

    def rescaled(self, scale: Tensor, shift: Tensor | None = None) -> Pinned:
        return self.of(self.inner.rescaled(scale), self.mask)

    def code(self, values: Tensor) -> Coded:
        return self.inner.code(values)
