"""How much each weight matters, [rows, cols]. Higher means keep, always.

`a` [cols, cols] = E[x x'] of the inputs, `g` the gradients' E[g g'] at the outputs: a matrix [rows, rows], its diagonal
[rows], or None for the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import factor


def magnitude(w: Tensor) -> Tensor:
    """Its size."""
    return w.abs()


def activation(w: Tensor, a: Tensor) -> Tensor:
    """The root mean square of what it multiplies, whatever its own size."""
    return a.diagonal().sqrt().to(w).expand_as(w)


def wanda(w: Tensor, a: Tensor) -> Tensor:
    """Its size times the size of what it multiplies (arXiv 2306.11695): values compare along a row, not between
    layers."""
    return w.abs() * activation(w, a)


def fisher(w: Tensor, a: Tensor, g: Tensor | None) -> Tensor:
    """The damage of taking it away alone while nothing else moves: 1/2 w^2 G_ii A_jj, in nats."""
    return 0.5 * w * w * height(w, g)[:, None] * a.diagonal().to(w)


def obs(w: Tensor, a: Tensor, g: Tensor | None = None, damp: float = 0.01) -> Tensor:
    """The damage of taking it away alone while all others make up for it, 1/2 w^2 / (inv(G)_ii inv(A)_jj).

    With G the identity the score of SparseGPT (arXiv 2301.00774) before any column has been pruned; in nats otherwise.
    """
    rest = 1 / inverse_diagonal(a, damp).to(w)
    if g is None or g.ndim == 1:
        return 0.5 * w * w * height(w, g)[:, None] * rest
    return 0.5 * w * w * rest / inverse_diagonal(g, damp).to(w)[:, None]


def height(w: Tensor, g: Tensor | None) -> Tensor:
    """The diagonal of G, [rows]."""
    return torch.ones_like(w[:, 0]) if g is None else factor.height(g).to(w)


def inverse_diagonal(a: Tensor, damp: float) -> Tensor:
    """The diagonal of the damped statistic's inverse, in float64."""
    lower = torch.linalg.cholesky(factor.damped(a.double(), damp))
    return torch.cholesky_inverse(lower).diagonal()
