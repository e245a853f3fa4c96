"""Triangular factors of statistics: A = (I + U) D (I + U)' with U strictly upper, damped until it works.

D is a diagonal, or has blocks where columns are rounded together: U then leaves a block's own columns alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def damped(a: Tensor, damp: float, least: float = 0.0) -> Tensor:
    """`a` plus `damp` times its mean diagonal, taken to be `least` at least; dead directions (zero diagonal) get the
    same. Float64 in and out."""
    out = a.clone()
    out.diagonal(dim1=-2, dim2=-1).add_((damp * _mean(a).clamp_min(least))[..., None])
    return out


def damped_diagonal(a: Tensor, damp: float) -> Tensor:
    """`damped` of a float32 statistic in float32: summed in float64, without a copy of it in float64."""
    out, diagonal = a.float().clone(), a.diagonal(dim1=-2, dim2=-1).double()
    mean = diagonal.mean(-1).clamp_min(torch.finfo(torch.float64).tiny)
    out.diagonal(dim1=-2, dim2=-1).copy_(diagonal + (damp * mean)[..., None])
    return out


def heard(x: Tensor, g: Tensor | None) -> Tensor:
    """G x; G is a matrix, a diagonal [rows], or None for the identity."""
    return x if g is None else g[:, None] * x if g.ndim == 1 else g @ x


def height(g: Tensor) -> Tensor:
    """The diagonal of G, [rows], which may be all that is known of it."""
    return g if g.ndim == 1 else g.diagonal()


def _mean(a: Tensor) -> Tensor:
    return a.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(a.dtype).tiny)


def unit_upper(a: Tensor, damp: float = 0.01, tries: int = 8, step: int = 1) -> tuple[Tensor, Tensor, float]:
    """(U, d, damp used): `damped(a) = (I + U) diag(d) (I + U)'`, U strictly upper, in float64.

    The factor of the reversed matrix, reversed: so an entry of `E (I + U)` depends only on columns to its left. Damping
    starts at `damp` and grows tenfold while the factor does not exist (rank-deficient or badly rounded statistics).
    With `step` > 1 the columns go in cells of that many: U is zero inside them, and d are blocks [cells, step, step].
    """
    for _ in range(tries):
        lower, info = torch.linalg.cholesky_ex(_turned(a, damp))
        if not bool(info.any()) and bool(torch.isfinite(lower).all()):
            u = lower.flip(-1, -2)
            del lower
            root = u.diagonal(dim1=-2, dim2=-1).clone()
            u /= root[..., None, :]
            if step > 1:
                return *_by_cells(u, root**2, step), damp
            u.diagonal(dim1=-2, dim2=-1).zero_()
            return u, root**2, damp
        damp = max(damp * 10, 1e-6)
    raise ValueError(f"no triangular factor even with damping {damp / 10:g}: the statistic holds NaN or Inf")


def _turned(a: Tensor, damp: float) -> Tensor:
    """The damped statistic in float64, symmetric to the last bit, last column and row first. At 11,008 columns every
    copy of it takes a gigabyte: no more than two are alive at once."""
    a = a.flip(-1, -2).double()
    a = (a + a.mT).div_(2)
    a.diagonal(dim1=-2, dim2=-1).add_((damp * _mean(a))[..., None])
    return a


def _by_cells(u: Tensor, d: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """U and D by cells of `step` columns: what a cell's own columns do to each other moves from `u` (ones on its
    diagonal) into the blocks of D."""
    n = len(d)
    if n % step:
        raise ValueError(f"{n} columns do not go in cells of {step}")
    at = torch.arange(n // step, device=u.device)
    cells = u.view(n, -1, step).permute(1, 0, 2)  # the columns of each cell
    own = cells.view(-1, n // step, step, step)[at, at]
    rest = torch.linalg.solve_triangular(own, cells, upper=True, left=False, unitriangular=True)
    rest.view(-1, n // step, step, step)[at, at] = 0
    return rest.permute(1, 0, 2).reshape(n, n), own * d.view(-1, 1, step) @ own.mT
