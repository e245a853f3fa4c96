"""Bits by a closed form: every column of a matrix gets as many as make its loss equal to all the others'.

Paper: Zhang et al., BAQ: Efficient Bit Allocation Quantization for Large Language Models (arXiv 2506.05664, 2025)
Wing: quantize
Shape: cut
Applies to: linear layers, column by column; and, as an allocator, the units of a menu
Use: secateur plan MENU --budget "3 bits/weight" --allocate baq

If column j at R_j bits loses c_j 4^-R_j, the least total at mean R is reached at R_j = R + 1/2 log2(c_j / GM(c)); it
is GM(c) / AM(c) of what equal widths lose. Pass one rounds at equal width and reads c_j from the error feedback; pass
two rounds again with R_j.

Where we differ: the exponent 1/1.95 and the whole level counts are the official code's; after rounding them the mean
misses R there, here the offset is solved again, so that the budget holds with the list of widths counted in. Between
units (not in the paper) the same form runs over the menu's own edits, next to the general `lagrange`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.maths import knapsack
from secateur.maths.factor import unit_upper
from secateur.maths.rounding import feedback
from secateur.maths.waterfill import waterfill
from secateur.parts.allocate import Question
from secateur.types import Budget, Menu, Plan

#: of the official code: columns lose 2^-1.95 a bit
EXPONENT = 1.95


def closed_form(loss: np.ndarray, bits: float) -> np.ndarray:
    """R_j = R + 1/2 log2(c_j / GM(c)): fractional bits, none below zero, at mean `bits`. `loss` in any unit."""
    return waterfill(loss, bits)


def levels(loss: np.ndarray, bits: float, offset: float | None = None) -> np.ndarray:
    """Whole level counts by the official code: `round(max(1, 2^offset (c / GM(c))^(1/1.95)))`, at most 2^8.

    Its offset is `bits`; here it is the largest that keeps the mean of log2(levels) at or under `bits`.
    """
    alive = loss > 0
    if not alive.any():
        return np.full(loss.shape, np.floor(2.0**bits))
    relative = np.zeros_like(loss)
    relative[alive] = np.exp((np.log(loss[alive]) - np.log(loss[alive]).mean()) / EXPONENT)

    def at(offset: float) -> np.ndarray:
        return np.clip(np.round(2.0**offset * relative), 1, 256)

    if offset is not None:
        return at(offset)
    return at(_largest(lambda t: np.log2(at(t)).mean() <= bits, -64.0, 64.0))


def widths(loss: np.ndarray, bits: float, menu: tuple[int, ...] = (2, 3, 4, 8)) -> np.ndarray:
    """Of the widths that kernels have, those with the least total loss at a mean of at most `bits`: our knapsack."""
    cost = np.tile(np.array(menu, dtype=float), (len(loss), 1))
    return np.array(menu)[knapsack.lagrange([cost], [bits * len(loss)], loss[:, None] * 4.0**-cost).edits]


def _largest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number between `low` and `high` for which a falling condition holds, by bisection."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class RowRange:
    """A grid between each row's smallest and largest weight (zero included), with a level count per column.

    `bottom` and `top` are [rows, 1]; a column of one level holds zeros.
    """

    bottom: Tensor
    top: Tensor
    scale: Tensor
    zero: Tensor | None = None
    step: int = 1

    @classmethod
    def fit(cls, w: Tensor, levels: Tensor) -> RowRange:
        bottom, top = w.amin(1, keepdim=True).clamp_max(0), w.amax(1, keepdim=True).clamp_min(0)
        scale = (top - bottom).clamp_min(1e-12) / (levels - 1)  # inf where there is one level
        zero = torch.round(-bottom / scale)
        return cls(bottom, top, scale, zero)

    def snap(self, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        assert zero is not None
        last = torch.round((self.top - self.bottom).view(-1, *[1] * (x.ndim - 1)) / scale)
        codes = torch.minimum((torch.round(x / scale) + zero).clamp_min(0), last)
        return torch.where(torch.isinf(scale), torch.zeros_like(x), (codes - zero) * scale)


@dataclass(frozen=True)
class Rounded:
    """A matrix rounded column by column: its `values`, the `levels` of every column, and the loss 1/2 tr(E A E')."""

    values: Tensor
    levels: Tensor
    loss: float

    @property
    def bits(self) -> float:
        """Mean bits a weight, with one byte a column for the list of level counts where columns differ."""
        listed = 8 / self.values.shape[0] if len(self.levels.unique()) > 1 else 0.0
        return float(self.levels.double().log2().mean()) + listed


def gptq(w: Tensor, a: Tensor, counts: Tensor | float, damp: float = 0.01) -> tuple[Rounded, np.ndarray]:
    """Error feedback with these level counts per column, and the loss that each column added (their sum is the loss).

    `w` [rows, cols], `a` = E[x x'] [cols, cols]. The loss is in the damped metric that feedback works in.
    """
    w = w.double()
    u, d, _ = unit_upper(a, damp)
    counts = torch.as_tensor(counts, dtype=torch.float64).expand(w.shape[1]).clone()
    grid: Any = RowRange.fit(w, counts)  # all of a fitted grid that feedback uses
    values = feedback(w, grid, u)
    error = w - values
    own = 0.5 * d * (error + error @ u).square().sum(0)
    return Rounded(values, counts, float(0.5 * ((error @ a.double()) * error).sum())), own.cpu().numpy()


def baq_columns(w: Tensor, a: Tensor, bits: float, damp: float = 0.01) -> Rounded:
    """Both passes: feedback at equal width, then again with the columns' own level counts, within `bits` in all."""
    _, own = gptq(w, a, float(2**bits), damp)
    # L_j was measured at the width 2^bits, which is a constant factor of every c_j
    counts = levels(own, bits - 8 / w.shape[0])
    return gptq(w, a, torch.from_numpy(counts), damp)[0]


def baq(menu: Menu, budget: Budget) -> Plan:
    """The closed form between units: `R_u = level + 1/2 log2(c_u)`, each unit the mildest edit of at most R_u bits.

    c_u is the unit's damage a weight, carried to zero bits along 4^-bits and averaged over its edits (geometrically).
    The level is the highest that keeps to the budget.
    """
    question = Question.of(menu, budget)
    floor = question.floor()  # raises, with what it would take, when nothing at all fits
    offered = np.isfinite(menu.damage) & np.all([np.isfinite(c) for c in question.cost], axis=0)
    cost = menu.cost.get("payload", question.cost[0])
    size = np.array([unit.size for unit in menu.units], dtype=float)
    bits = np.where(offered, 8 * cost / size[:, None], np.inf)
    damage = np.where(offered, menu.damage, np.inf)
    counted = offered & (damage > 0)
    carried = np.log2(damage / size[:, None], out=np.zeros_like(damage), where=counted)
    carried = np.where(counted, carried + 2 * np.where(counted, bits, 0.0), 0.0)
    c = carried.sum(1) / np.maximum(counted.sum(1), 1)
    own = np.where(counted.any(1), c / 2, -np.inf)
    cheapest = np.where(bits == bits.min(1, keepdims=True), damage, np.inf).argmin(1)

    def at(level: float) -> np.ndarray:
        within = bits <= (own + level)[:, None] + 1e-9
        mildest = np.where(within, damage, np.inf).argmin(1)
        return np.where(within.any(1), mildest, cheapest)

    turns = np.unique((bits - own[:, None])[np.isfinite(bits) & np.isfinite(own)[:, None]])
    low, high = -1, len(turns) - 1  # turn -1: everything at its cheapest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if question.fits(at(turns[middle])) else (low, middle - 1)
    return question.answer(at(turns[low]) if low >= 0 else cheapest, "baq", floor)
