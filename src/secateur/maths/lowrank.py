"""Low rank: the product of two thin matrices that loses least in the metric 1/2 tr(G E A E'), for all ranks at once.

With A = P P' and G = Q Q', the damage of E is half the squared size of Q' E P. So of all matrices of rank k the
truncated SVD of Q' W P, carried back, is the best there is (Eckart and Young, in this metric), and it loses half the
sum of the squared singular values that are left out. One decomposition gives every rank, each the beginning of the
next.

Plain SVD is the case A = G = identity; ASVD has a diagonal of input sizes for P; whitened SVD has A and no G.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .factor import damped, heard, unit_upper
from .grids import Coded
from .rounding import damage, nearest
from .settle import DAMP, Effort, Metrics, Settled, settle, swept, widened

#: components that are rounded to see what rounding all of them costs
SOME = 16
#: shares whose best matrices are left as probes, where ranks at or below them are asked for
PROBED = (0.75, 0.45, 0.25)


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

    @property
    def level(self) -> int:
        return 300 + round(100 * self.keep)

    def losses(self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[LowRank]) -> list[float]:
        return self.losses_and_probes(w, a, g, forms)[0]

    def losses_and_probes(
        self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[LowRank]
    ) -> tuple[list[float], dict[int, tuple[float, Tensor]]]:
        """What is left out, in closed form, and what rounding adds: that share of a component's worth is measured on a
        few components, once for every grid. The best matrices at some shares are left as probes."""
        metric = Sides.of(a, g)
        best = decompose(w, metric)
        ranks = [rank(form.keep, *w.shape) for form in forms]
        at = torch.linspace(0, max(ranks) - 1, SOME).long().unique().to(w.device)
        at = at[best.energy[at] > 1e-12 * best.energy[0]]
        noise = _noises([form.inner for form in forms], best, metric, at)
        kept = [0.5 * float(best.energy[:k].sum()) for k in ranks]
        losses = [best.damage(k) + noise[f.inner] * own for f, k, own in zip(forms, ranks, kept, strict=True)]
        least = min(form.keep for form in forms)
        shares = [keep for keep in PROBED if keep >= least] or [least]
        probes = {LowRank(keep).level: rank(keep, *w.shape) for keep in shares}
        return losses, {level: (best.damage(k), (best.left[:, :k] @ best.right[:k])) for level, k in probes.items()}

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


def _noises(grids: Iterable[Any], best: Ranks, metric: Sides, at: Tensor) -> dict[Any, float]:
    """By grid: what rounding costs as a share of what is kept, from the components `at`. The metric keeps these apart,
    so that each is rounded as if it were alone: the right factor's part of a component's loss is its error against A,
    times how much its left factor is heard, and the other way about. All grids are swept side by side."""
    out: dict[Any, float] = dict.fromkeys(grids, 0.0)
    inner = [grid for grid in out if grid is not None] if len(at) else []
    left, right, worth = best.left[:, at].mT.float(), best.right[at].float(), best.energy[at].float()
    along = torch.ones(left.shape[1], device=left.device) if metric.g is None else metric.g.float()
    a = metric.a.float()
    for own, x, other in ((a, right, _sizes(left, along)), (along, left, _sizes(right, a))):
        fits = [grid.fit(x, own if own.ndim == 1 else own.diagonal()) for grid in inner]
        if own.ndim == 1:  # nothing to feed back: components hardly share errors
            rounded = [nearest(x, fit, own) for fit in fits]
        else:
            shared = Metrics()
            jobs = [(shared.of(own, torch.diag(other), step=fit.step), x, fit) for fit in fits]
            rounded = swept([(m, x, widened(fit, _usual(grid))) for (m, x, fit), grid in zip(jobs, inner, strict=True)])
        for grid, values in zip(inner, rounded, strict=True):
            out[grid] += float((_sizes(x - values, own) * other / worth).mean())
    return out


def _sizes(x: Tensor, along: Tensor) -> Tensor:
    """x_i A x_i' of each row; A is a matrix, or its diagonal."""
    return ((x * along if along.ndim == 1 else x @ along) * x).sum(1)


def _usual(grid: Any) -> float:
    return Effort.for_bits(getattr(grid, "bits", 8)).usual


def rank(keep: float, rows: int, cols: int) -> int:
    """The rank whose two factors hold the share `keep` of a matrix's numbers; at least one."""
    return max(1, math.floor(keep * rows * cols / (rows + cols)))
