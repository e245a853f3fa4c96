"""Which weights stay and what they become: both chosen in the metric of the damage, 1/2 tr(G E A E'), E = W - V.

Under a fixed mask the damage is quadratic in the weights that stay, and conjugate gradients find the best (`refitted`).
Which stay is a choice of combinations; we go about it as ALPS does (arXiv 2406.07831), by ADMM: a dense copy V that
minimises the damage and a sparse copy D that obeys the mask are pulled towards each other, harder every turn, until
they agree on who stays. Where we differ: the metric has both sides, so that the dense step is solved in the
eigenvectors of A and of G at once, and one eigendecomposition each serves all turns and all levels; weights are scaled
by the roots of both diagonals first; the pull grows by the same factor every turn; the refit starts where the search
ended. Twenty turns do as well within 5%.

On `lm-small` with half of its weights gone: KL 0.055 with SparseGPT, 0.034 with this and G = identity, 0.024 with both
sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .conjugate import conjugate
from .factor import damped, heard
from .scores import height

#: damping of the factors, as a share of their mean diagonal
DAMP = 0.01
#: turns of the search for a mask, and the pull at the first and after the last, in which damages curve by about one
TURNS, PULLS = 40, (0.1, 4.5)
#: steps of conjugate gradients: few, because the search ends beside the answer
STEPS = 15

#: scores [rows, cols], none below zero, to the mask of what stays
Choose = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scene:
    """One matrix, its damped factors, and both in the eigenvectors in which the search for masks is easy."""

    w: Tensor
    a: Tensor
    g: Tensor | None  # a matrix, a diagonal, or None for the identity
    across: Tensor  # roots of A's diagonal, [cols]
    down: Tensor  # roots of G's, [rows]
    qa: Tensor
    qg: Tensor | None
    curves: Tensor  # products of eigenvalues, [rows, cols]
    seen: Tensor  # the scaled weights in the eigenvectors

    @classmethod
    def of(cls, w: Tensor, a: Tensor, g: Tensor | None, damp: float = DAMP) -> Scene:
        w, a = w.float(), damped(a.double(), damp).float()
        if g is not None and not bool((g != 0).any()):
            g = None  # nobody hears it: all that stays is to keep what it says
        if g is not None:
            g = damped(g.double(), damp).float() if g.ndim == 2 else g.float() + damp * g.float().mean()
        across, down = a.diagonal().sqrt(), height(w, g).sqrt().clamp_min(1e-30)
        la, qa = torch.linalg.eigh(a / across[:, None] / across)
        lg, qg = torch.ones_like(down), None
        if g is not None and g.ndim == 2:
            lg, qg = torch.linalg.eigh(g / down[:, None] / down)
        curves = lg.clamp_min(0)[:, None] * la.clamp_min(0)
        return cls(w, a, g, across, down, qa, qg, curves, _turn(down[:, None] * w * across, qa, qg))

    @property
    def scaled(self) -> Tensor:
        """Weights by the roots of both diagonals: their squares are twice the damages of taking each away alone."""
        return self.down[:, None] * self.w * self.across

    def metric(self, e: Tensor) -> Tensor:
        """G E A."""
        return heard(e @ self.a, self.g)

    def damage(self, values: Tensor) -> float:
        e = self.w - values
        return 0.5 * float((e * self.metric(e)).sum())

    def pruned(self, choose: Choose, turns: int = TURNS, steps: int = STEPS) -> tuple[Tensor, Tensor]:
        """Who stays (True), and the weights as they become. `choose` ranks squares of scaled weights, once a turn; with
        no turns it is their own size that counts."""
        x = self.scaled
        mask = choose(x.square())
        sparse, owed = x * mask, torch.zeros_like(x)
        pull, last = PULLS
        growth = (last / pull) ** (1 / max(turns, 1))
        for _ in range(turns):
            seen = (self.curves * self.seen + pull * _turn(sparse - owed, self.qa, self.qg)) / (self.curves + pull)
            owed = _back(seen, self.qa, self.qg).add_(owed)  # the dense copy and what it is owed
            mask = choose(owed.square())
            sparse = owed * mask
            owed = owed - sparse
            pull *= growth
        return mask, self.refitted(mask, sparse / self.down[:, None] / self.across, steps)

    def refitted(self, mask: Tensor, start: Tensor | None = None, steps: int = STEPS) -> Tensor:
        """The weights under `mask` that make up for the others best, zeros elsewhere; steps go from `start`."""
        kept = mask.to(self.w)
        values = (self.w if start is None else start) * kept
        inverse = kept / (self.down.square()[:, None] * self.across.square())
        residual = kept * self.metric(self.w - values)
        return conjugate(values, residual, inverse, lambda direction: kept * self.metric(direction), steps)


def _turn(x: Tensor, qa: Tensor, qg: Tensor | None) -> Tensor:
    """Into the eigenvectors."""
    x = x @ qa
    return x if qg is None else qg.mT @ x


def _back(x: Tensor, qa: Tensor, qg: Tensor | None) -> Tensor:
    x = x @ qa.mT
    return x if qg is None else qg @ x
