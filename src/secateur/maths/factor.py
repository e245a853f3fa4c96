"""Triangular factors of statistics: A = (I + U) D (I + U)' with U strictly upper, damped until it works."""

from __future__ import annotations

import torch
from torch import Tensor


def damped(a: Tensor, damp: float) -> Tensor:
    """`a` plus `damp` times its mean diagonal; dead directions (zero diagonal) get the same. Float64 in and out."""
    mean = a.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(a.dtype).tiny)
    return a + (damp * mean)[..., None, None] * torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)


def unit_upper(a: Tensor, damp: float = 0.01, tries: int = 8) -> tuple[Tensor, Tensor, float]:
    """(U, d, damp used): `damped(a) = (I + U) diag(d) (I + U)'`, U strictly upper, in float64.

    The factor of the reversed matrix, reversed: so an entry of `E (I + U)` depends only on columns to its left. Damping
    starts at `damp` and grows tenfold while the factor does not exist (rank-deficient or badly rounded statistics).
    """
    a = a.double()
    a = (a + a.mT) / 2
    for _ in range(tries):
        lower, info = torch.linalg.cholesky_ex(damped(a, damp).flip(-1, -2))
        if not bool(info.any()) and bool(torch.isfinite(lower).all()):
            upper = lower.flip(-1, -2)
            root = upper.diagonal(dim1=-2, dim2=-1)
            u = upper / root[..., None, :]
            return u - torch.eye(a.shape[-1], dtype=a.dtype, device=a.device), root**2, damp
        damp = max(damp * 10, 1e-6)
    raise ValueError(f"no triangular factor even with damping {damp / 10:g}: the statistic holds NaN or Inf")
