"""Cache a few numbers instead of keys and values, and make both from them again when they are read.

Paper: Wang et al., CSKV: Training-Efficient Channel Shrinking for KV Cache in Long-Context Scenarios
    (arXiv 2409.10593, 2024)
Wing: factorize
Shape: cut
Applies to: key and value projections, before positions are turned in
Use: secateur cut MODEL --data text.txt --budget "50% kv" --format packed -o out

A token's key x W' is nearly (x D') U' with D [r, width] and U [channels, r]: c = x D' is cached, r numbers a token for
all heads together. Keys and values of the window that a token stands in are exact; whole windows before it are rebuilt.
The paper starts from an SVD of W times the size of its inputs (ASVD, `asvd`), then trains D and U on the squared error
of keys and values alone.

Where we differ: that error has its least in closed form, the whitened SVD (`maths/lowrank` with A = E[x x'] and no G),
so nothing is trained. With the survey's G as well it is the `rank` edit, whose error is the loss's own, and which
counts for a cap on the cache in `packed` files: their reader keeps c (`model/latent.py`). How many numbers each
layer's keys and values get is a knapsack over their curves (`ranks`, and on a menu the plan's own); the paper gives all
the same share. Codes of c in 4 bits are rounded to nearest, keys over a window for each number and values over a
token's own numbers, without training; they and the exact window are simulated here, no file has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.maths import knapsack
from secateur.maths.lowrank import Ranks, Sides, decompose


@dataclass(frozen=True)
class Shrunk:
    """`down` [r, width] makes what is cached of a token, `up` [channels, r] makes keys or values of it."""

    down: Tensor
    up: Tensor

    def cached(self, x: Tensor) -> Tensor:
        """What is kept of hidden states [..., width]."""
        return x @ self.down.mT

    def rebuilt(self, c: Tensor) -> Tensor:
        """Keys (before positions) or values, [..., channels]."""
        return c @ self.up.mT


def asvd(w: Tensor, size: Tensor, rank: int, power: float = 0.5) -> Shrunk:
    """The paper's start: W diag(s) cut to `rank`, s_j = (mean |x_j| + 1e-6)^power; `power` 0 is plain SVD."""
    s = (size.double() + 1e-6) ** power
    u, sigma, v = torch.linalg.svd(w.double() * s, full_matrices=False)
    root = sigma[:rank].sqrt()
    return Shrunk((root[:, None] * v[:rank] / s).to(w.dtype), (u[:, :rank] * root).to(w.dtype))


def whitened(w: Tensor, a: Tensor, rank: int, damp: float = 1e-6) -> Shrunk:
    """The least of E|x W' - x W'^|^2, what the paper trains for; `a` = E[x x']."""
    best = decompose(w, Sides.of(a, None, damp))
    return Shrunk(best.right[:rank].to(w.dtype), best.left[:, :rank].to(w.dtype))


def seen(exact: Tensor, rebuilt: Tensor, window: int) -> Tensor:
    """Which of both a token at the end of [..., tokens, channels] reads: whole windows rebuilt, its own exact."""
    whole = (exact.shape[-2] - 1) // window * window if window else exact.shape[-2] - 1
    return torch.cat([rebuilt[..., :whole, :], exact[..., whole:, :]], -2)


def coded(c: Tensor, bits: int, over: int) -> Tensor:
    """What is cached, rounded to 2^bits levels between the ends of its range along axis `over`: tokens of a window for
    keys (-2), a token's own numbers for values (-1)."""
    low, high = c.amin(over, keepdim=True), c.amax(over, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp_min(1e-12)
    return ((c - low) / step).round() * step + low


def kv_bytes(ranks: Sequence[int], channels: Sequence[int], tokens: int, window: int = 32, bits: int = 16) -> float:
    """Bytes of the cache behind so many tokens: compressed whole windows, and one window of exact 16-bit numbers.
    `ranks` and `channels` are of keys and values of every layer."""
    whole = max(tokens - 1, 0) // window * window if window else tokens
    return whole * sum(ranks) * bits / 8 + (tokens - whole) * sum(channels) * 2


def ranks(curves: Sequence[Ranks], most: int, at_least: int = 1) -> list[int]:
    """How many numbers of a token every layer's keys and values get, `most` in all, so that the damage is least.

    The energies of all curves must be in one unit: with a G nats, without one squares of keys and values.
    """
    longest = max(len(one.energy) for one in curves)
    damage = np.full((len(curves), longest + 1), np.inf)
    for at, one in enumerate(curves):
        tail = one.energy.flip(0).cumsum(0).flip(0).cpu().numpy() / 2
        damage[at, at_least : len(tail) + 1] = np.r_[tail, 0.0][at_least:]
    cost = np.tile(np.arange(longest + 1, dtype=float), (len(curves), 1))
    return knapsack.lagrange([cost], [most], damage).edits.tolist()
