"""Low rank: the product of two thin matrices that loses least in the metric 1/2 tr(G E A E'), for all ranks at once.

With A = P P' and G = Q Q', the damage of E is half the squared size of Q' E P. So of all matrices of rank k the
truncated SVD of Q' W P, carried back, is the best there is (Eckart and Young, in this metric), and it loses half the
sum of the squared singular values that are left out. One decomposition gives every rank, each the beginning of the
next.

Plain SVD is the case A = G = identity; ASVD has a diagonal of input sizes for P; whitened SVD has A and no G.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .factor import damped, heard, unit_upper
from .grids import Coded
from .rounding import damage, nearest
from .settle import DAMP, Settled, settle

#: components that are rounded to see what rounding all of them costs
SOME = 16


@dataclass(frozen=True)
class Sides:
    """Both factors of the metric as low ranks use them, damped, in float64. G is a matrix, a diagonal, or None."""

    a: Tensor
    g: Tensor | None

    @classmethod
    def of(cls, a: Tensor, g: Tensor | None, damp: float = DAMP) -> Sides:
        full = damped(a.double(), unit_upper(a, damp)[2])
        if g is None or g.ndim == 2:
            return cls(full, g if g is None else damped(g.double(), unit_upper(g, damp)[2]))
        g = g.double()
        return cls(full, g + damp * g.mean().clamp_min(torch.finfo(g.dtype).tiny))

    def heard(self, left: Tensor) -> Tensor:
        """G left."""
        return heard(left, self.g)

    def fitted_left(self, w: Tensor, right: Tensor) -> Tensor:
        """The left factor [rows, k] that loses least with this right one: G has no say in it."""
        seen = self.a @ right.mT
        return _solved(right @ seen, (w @ seen).mT).mT

    def fitted_right(self, w: Tensor, left: Tensor) -> Tensor:
        """The right factor [k, cols] that loses least with this left one: A has no say in it."""
        heard = self.heard(left)
        return _solved(left.mT @ heard, heard.mT @ w)

    def damage(self, error: Tensor) -> float:
        return float(damage(error.double(), self.a, self.g))


def _solved(gram: Tensor, x: Tensor) -> Tensor:
    """gram^-1 x; components that are nothing stay nothing."""
    ridge = 1e-12 * gram.diagonal().mean() + torch.finfo(gram.dtype).tiny
    return torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), x)


@dataclass(frozen=True)
class Ranks:
    """`left[:, :k] @ right[:k]` is the best matrix of rank k; columns of `left` have a mean square of one. `energy[j]`
    is what component j is worth: rank k damages half the sum of `energy[k:]`. Float64."""

    left: Tensor
    right: Tensor
    energy: Tensor

    def damage(self, k: int) -> float:
        return 0.5 * float(self.energy[k:].sum())


def decompose(w: Tensor, sides: Sides) -> Ranks:
    """The best matrices of every rank. The smaller side's Gram matrix is decomposed, its eigenvalues are the squared
    singular values."""
    w, p = w.double(), _root(sides.a)
    q = sides.g.sqrt() if sides.g is not None and sides.g.ndim == 1 else None if sides.g is None else _root(sides.g)
    m = (w if q is None else q[:, None] * w if q.ndim == 1 else q.mT @ w) @ p
    if len(w) <= w.shape[1]:
        energy, u = torch.linalg.eigh(m @ m.mT)
    else:
        energy, v = torch.linalg.eigh(m.mT @ m)
        u = m @ v / energy.clamp_min(1e-300).sqrt()
    energy, u = energy.flip(0).clamp_min(0), u.flip(1)
    real = energy > 1e-14 * energy[0]  # what is smaller is rounding
    u = torch.where(real, u, 0.0)
    right = torch.linalg.solve_triangular(p, u.mT @ m, upper=True, left=False)
    left = u if q is None else u / q[:, None] if q.ndim == 1 else torch.linalg.solve_triangular(q.mT, u, upper=False)
    size = torch.where(real, left.square().mean(0).sqrt(), 1.0)
    return Ranks(left / size, right * size[:, None], energy)


def _root(a: Tensor) -> Tensor:
    """P, upper triangular, with P P' = A."""
    u, d, _ = unit_upper(a, 0.0)
    return (u + torch.eye(len(u), dtype=u.dtype, device=u.device)) * d.sqrt()


@dataclass(frozen=True)
class FittedLowRank:
    """Both factors as the file holds them, each with a row per component: `left` [k, rows] and `right` [k, cols]."""

    left: Coded
    right: Coded

    @property
    def values(self) -> Tensor:
        return self.left.values.mT @ self.right.values

    def code(self, values: Tensor) -> Coded:
        """The payload; `values` are those of `settle`."""
        sides = {"left": self.left.tensors, "right": self.right.tensors}
        return Coded(values, {joined(side, name): x for side, some in sides.items() for name, x in some.items()})


def joined(side: str, name: str) -> str:
    """The name of a part of one factor: `left_codes`, or `left` where a factor is one tensor."""
    return f"{side}_{name}" if name else side


@dataclass(frozen=True)
class LowRank:
    """A matrix as the product of two thin ones that hold the share `keep` of its numbers together, kept as `dtype` or
    on the grid `inner`, its groups along a component."""

    keep: float
    inner: Any = None
    dtype: torch.dtype = torch.float16

    def settle(self, w: Tensor, a: Tensor, g: Tensor | None, sides: int = 2) -> Settled:
        """The right factor is put on its grid, the left one is fitted to what became of it and put on its own; with a
        grid, once more from the other side. The better of both is kept."""
        metric = Sides.of(a, g) if sides == 2 else Sides.of(a if sides else torch.diag(a.diagonal()), None)
        judge, w = Sides.of(a, g), w.double()
        k = rank(self.keep, *w.shape)
        right = decompose(w, metric).right[:k]
        left = metric.fitted_left(w, right)
        found: list[tuple[float, int, FittedLowRank]] = []
        for turn in range(1 if self.inner is None else 2):
            across = left.mT @ metric.heard(left)
            held = self._held(right, metric.a, across, sides)
            right = held.values.double()
            left = metric.fitted_left(w, right)
            along = metric.g if metric.g is not None else torch.ones(len(w), dtype=w.dtype, device=w.device)
            now = FittedLowRank(self._held(left.mT, along, right @ metric.a @ right.mT, sides), held)
            found.append((judge.damage(w - now.values), turn, now))
            left = now.left.values.double().mT
            right = metric.fitted_right(w, left)
        least, _, best = min(found, key=lambda one: one[:2])
        return Settled(best.values, best, least)

    def losses(self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[LowRank]) -> list[float]:
        """What is left out, in closed form, and what rounding adds: that share of a component's worth is measured on a
        few components, once for every grid."""
        metric = Sides.of(a, g)
        best = decompose(w, metric)
        ranks = [rank(form.keep, *w.shape) for form in forms]
        at = torch.linspace(0, max(ranks) - 1, SOME).long().unique().to(w.device)
        at = at[best.energy[at] > 1e-12 * best.energy[0]]
        noise = {form.inner: form._noise(best, metric, at) for form in dict.fromkeys(forms)}
        kept = [0.5 * float(best.energy[:k].sum()) for k in ranks]
        return [best.damage(k) + noise[f.inner] * own for f, k, own in zip(forms, ranks, kept, strict=True)]

    def _noise(self, best: Ranks, metric: Sides, at: Tensor) -> float:
        """What rounding costs as a share of what is kept, from the components `at`: the metric keeps them apart, so
        that each is rounded as if it were alone."""
        if self.inner is None or not len(at):
            return 0.0
        left, right, worth = best.left[:, at], best.right[at], best.energy[at]
        heard, seen = (left * metric.heard(left)).sum(0), ((right @ metric.a) * right).sum(1)
        along = metric.g if metric.g is not None else left.new_ones(len(left))
        right = right - self._held(right, metric.a, torch.diag(heard), 2).values
        left = left.mT - self._held(left.mT, along, torch.diag(seen), 2).values
        lost = ((right @ metric.a) * right).sum(1) * heard
        lost = lost + ((left * along if along.ndim == 1 else left @ along) * left).sum(1) * seen
        return float((lost / worth).mean())

    def _held(self, x: Tensor, along: Tensor, across: Tensor, sides: int) -> Coded:
        """One factor [k, n] as the file holds it, its errors weighed by `along` ([n, n], or its diagonal) and `across`
        [k, k]. Where `along` is a diagonal there is nothing to feed back: components hardly share errors."""
        x = x.float()
        if self.inner is None:
            most = torch.finfo(self.dtype).max
            held = x.clamp(-most, most).to(self.dtype)
            return Coded(held.float(), {"": held})
        if along.ndim == 2:
            done = settle(x, self.inner, along.float(), across.float(), sides=sides)
            return done.grid.code(done.values)
        fit = self.inner.fit(x, along.float())
        return fit.code(nearest(x, fit, along.float()))


def rank(keep: float, rows: int, cols: int) -> int:
    """The rank whose two factors hold the share `keep` of a matrix's numbers; at least one."""
    return max(1, math.floor(keep * rows * cols / (rows + cols)))
