"""Settle a matrix on its grid: error feedback, then scales refitted in the same metric, again while it pays.

Feedback pushes targets beyond the range that plain weights need, the more the fewer the bits: at 2 bits attention
matrices lose half their damage when scales are widened by 1.15 to 1.3 first. So a few widths (and a stronger damping)
are swept side by side and the best goes on. Nothing here is tuned by gradient, and nothing depends on more data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .factor import damped, unit_upper
from .grids.affine import FittedAffine, stacked
from .rounding import damage, feedback, feedback_two_sided, nearest, refit

#: damping of the factors, as a share of their mean diagonal, and the stronger one tried for few levels
DAMP, STRONG = 0.01, 0.1


@dataclass(frozen=True)
class Metric:
    """Damped factors of one matrix and their triangular parts: everything that rounding needs, made once."""

    a: Tensor
    g: Tensor | None
    u: Tensor
    v: Tensor | None  # None: rows are rounded on their own
    damp: float
    weight: Tensor | None = None  # of every column inside its cell; None for scalars

    @classmethod
    def of(cls, a: Tensor, g: Tensor | None, damp: float = DAMP, step: int = 1) -> Metric:
        """From A [cols, cols] and G ([rows, rows], its diagonal, or None), on grids that code `step` columns at once.
        Dead inputs weigh what damping gives."""
        u, d, used = unit_upper(a, damp, step=step)
        weight = None if step == 1 else d.diagonal(dim1=1, dim2=2).flatten().float()
        a = damped(a.double(), used).float()
        if g is None or g.ndim == 1:
            return cls(a, g, u.float(), None, used, weight)
        v, _, under = unit_upper(g, damp)
        return cls(a, damped(g.double(), under).float(), u.float(), v.float(), used, weight)

    def sweep(self, w: Tensor, grid: Any) -> Tensor:
        """Error feedback, on both sides where the factors allow."""
        if self.v is None:
            return feedback(w, grid, self.u, self.weight)
        return feedback_two_sided(w, grid, self.u, self.v, self.weight)

    def damage(self, error: Tensor) -> Tensor:
        return damage(error, self.a, self.g)


@dataclass(frozen=True)
class Effort:
    """How hard to try on a grid with this many levels: widths of the scales, stronger damping, refits."""

    widths: tuple[float, ...] = (1.0,)
    strong: bool = False
    refits: int = 0

    @property
    def usual(self) -> float:
        """The width that wins most often."""
        return self.widths[len(self.widths) // 2]

    @classmethod
    def for_bits(cls, bits: int) -> Effort:
        if bits <= 2:
            return cls((1.0, 1.15, 1.3), True, 3)
        if bits == 3:
            return cls((1.0, 1.1, 1.2), True, 2)
        return cls((1.0,), False, 1) if bits == 4 else cls()


@dataclass(frozen=True)
class Settled:
    """Values on the grid [rows, cols], the grid with its final scales, and the damage in the metric, nats per token."""

    values: Tensor
    grid: Any
    damage: float
    bad_rows: tuple[int, ...] = ()


def settle(w: Tensor, grid: Any, a: Tensor, g: Tensor | None, effort: Effort | None = None, sides: int = 2) -> Settled:
    """Round `w` [rows, cols] onto `grid` against A and G; `sides` 1 ignores G while rounding, 0 takes the nearest.

    Rows with NaN or infinity are left out, coded as zeros, and named in `bad_rows`.
    """
    good = torch.isfinite(w).all(1)
    if not bool(good.all()):
        return _without(good, w, grid, a, g, effort, sides)
    w = w.float()
    fit = grid.fit(w, a.diagonal())
    metric = Metric.of(a, g, step=fit.step)
    if sides == 0:
        values = nearest(w, fit, metric.a.diagonal())
        return Settled(values, fit, float(metric.damage(w - values)))
    if sides == 1:
        metric = replace(metric, g=g, v=None)
    effort = Effort.for_bits(getattr(grid, "bits", 8)) if effort is None else effort
    best = _widest(w, fit, metric, effort)
    if effort.strong:
        strong = Metric.of(a, g if sides == 2 else None, STRONG, fit.step)
        values = strong.sweep(w, best.grid)
        other = Settled(values, best.grid, float(metric.damage(w - values)))
        if other.damage < best.damage:
            best, sweeper = other, strong
        else:
            sweeper = metric
    else:
        sweeper = metric
    fit, values = best.grid, best.values
    for _ in range(effort.refits):
        fit = refit(w, values, fit, metric.a, metric.g)
        values = sweeper.sweep(w, fit)
        now = float(metric.damage(w - values))
        if now < best.damage:
            best = Settled(values, fit, now)
    return best


def _without(
    good: Tensor, w: Tensor, grid: Any, a: Tensor, g: Tensor | None, effort: Effort | None, sides: int
) -> Settled:
    """Only the `good` rows settled, as if there were no others; the rest are zeros, and make up for nobody's errors."""
    fit = grid.fit(torch.where(good[:, None], w.float(), 0.0), a.diagonal())
    values, damaged = torch.zeros_like(fit.scale), 0.0
    if bool(good.any()):
        own = g if g is None else g[good] if g.ndim == 1 else g[good][:, good]
        done = settle(w[good], grid, a, own, effort, sides)
        values[good], damaged = done.values, done.damage
        fit.scale[good] = done.grid.scale
        if fit.zero is not None:
            fit.zero[good] = done.grid.zero
    return Settled(values, fit, damaged, tuple((~good).nonzero().flatten().tolist()))


def _widest(w: Tensor, fit: Any, metric: Metric, effort: Effort) -> Settled:
    """The best of several widths of the scales."""
    fits = [widened(fit, width) for width in effort.widths]
    if len(fits) > 1 and metric.v is not None and isinstance(fit, FittedAffine):
        swept = metric.sweep(w, stacked(fits))
    else:
        swept = torch.stack([metric.sweep(w, one) for one in fits])
    damages = metric.damage(w - swept)
    at = int(damages.argmin())
    return Settled(swept[at], fits[at], float(damages[at]))


def widened(fit: Any, width: float) -> Any:
    """A fitted grid with all scales times `width`, about the same middle."""
    if width == 1.0:
        return fit
    scale = fit.scale[:, :: fit.group]
    if fit.zeros is None:
        return fit.rescaled(scale * width)
    zero = fit.zero[:, :: fit.group]
    middle = (fit.low + fit.high) / 2
    return fit.rescaled(scale * width, scale * (middle - zero) - scale * width * middle)
