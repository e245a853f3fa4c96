"""How many heads and neurons go in every block, by prices: counts go down the damage, the price of FLOPs climbs.

Paper: Yu et al., Unified Visual Transformer Compression (arXiv 2203.08243, 2022)
Wing: allocate
Shape: cut
Applies to: groups of heads, neurons or channels; and, as an allocator, the units of a menu
Use: secateur plan MENU --budget "3 bits/weight" --allocate uvc

A head or a neuron has the energy of the weights that read it: the squared norm of its columns in the next matrix. The
paper minimises the loss under two constraints: the energy of the n smallest is nothing, and the FLOPs of what stays
keep to a budget. Each has a price. n is a real number and moves against (price of energy) x (the next smallest energy)
- (price of FLOPs) x (what one more saves); weights shrink by a proximal step; prices climb while their constraint is
missed.

Here is the knapsack part: counts and prices, over energies that stand still (`drop`), and over any menu's own damages.
Where we differ: without the training between steps energy never becomes nothing, so its price is one and the total
energy is what is minimised. The price of FLOPs climbs by a factor and not by a sum, and steps are relative: energies
span decades. The best choice within the budget that was met on the way is returned, not the last. Gates that skip whole
blocks and the post-training belong to a training loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from secateur.parts.allocate import Question, written
from secateur.types import Budget, BudgetError, Menu, Plan

#: steps of the primal-dual iteration; how much of its way a count goes in the first, and a price in one (a factor e^x)
STEPS, RATE, CLIMB = 600, 0.05, 0.5


def energies(w: Tensor, per: int = 1) -> Tensor:
    """The energy of every head or neuron: the squared norm of its `per` columns in the matrix that reads it."""
    return w.double().square().sum(0).unflatten(0, (-1, per)).sum(1)


def lost(n: float, energy: np.ndarray) -> float:
    """T(n, e): the sum of the ceil(n) smallest energies."""
    return float(np.sort(energy)[: math.ceil(n)].sum())


def slope(n: float, energy: np.ndarray) -> float:
    """dT/dn: the next smallest energy."""
    return float(np.sort(energy)[min(math.floor(n), len(energy) - 1)])


def shrunk(w: Tensor, price: float, rate: float) -> Tensor:
    """The proximal step of columns that are to go: argmin |x - w|^2 / (2 rate) + price |x|^2."""
    return w / (1 + 2 * rate * price)


def drop(energy: Sequence[np.ndarray], cost: Sequence[float], budget: float) -> list[int]:
    """How many of each group go, so that what stays costs at most `budget` and little energy is lost. `cost` is of one
    head or neuron of the group; one of each group stays."""
    curves = [np.r_[0.0, np.cumsum(np.sort(one))[:-1]] for one in energy]
    left = [np.arange(len(one), 0, -1) * each for one, each in zip(energy, cost, strict=True)]
    if sum(one[-1] for one in left) > budget:
        raise BudgetError(f"one of every group costs more than {budget:g}", "ask for more")
    return primal_dual(curves, [np.array([one]) for one in left], np.array([budget])).tolist()


def primal_dual(damage: Sequence[np.ndarray], cost: Sequence[np.ndarray], caps: np.ndarray) -> np.ndarray:
    """A place on every unit's curve: damages rise along it, `cost` [caps, places] falls. The last places must fit."""
    units, longest = np.arange(len(damage)), max(map(len, damage))
    last = np.array([len(one) - 1 for one in damage])
    d = np.array([np.r_[one, np.full(longest - len(one), one[-1])] for one in damage])
    c = np.array([np.c_[one, np.tile(one[:, -1:], longest - one.shape[1])] for one in cost]) / caps[:, None]
    best, least = last, d[units, last].sum()
    n, price = np.zeros(len(units)), np.full(len(caps), _lowest(d, c))
    for step in range(STEPS):
        at = np.minimum(np.floor(n), np.maximum(last - 1, 0)).astype(int)
        after = np.minimum(at + 1, last)
        harm = d[units, after] - d[units, at]
        saved = (price[:, None] * (c[units, :, at] - c[units, :, after]).T).sum(0)
        pull = (saved - harm) / np.maximum(saved + harm, 1e-300)
        n = np.clip(n + RATE / (1 + step / 50) * last * pull, 0, last)
        place = np.ceil(n - 1e-9).astype(int)
        missed = c[units, :, place].sum(0) - 1
        if (missed <= 1e-12).all() and d[units, place].sum() < least:
            best, least = place, d[units, place].sum()
        price = price * np.exp(CLIMB * np.clip(missed, -0.5, 0.5))
    return best


def _lowest(d: np.ndarray, c: np.ndarray) -> float:
    """The price at which nothing goes yet."""
    harm, saved = np.diff(d, axis=1), -np.diff(c, axis=2).sum(1)
    rates = harm[saved > 0] / saved[saved > 0]
    return float(rates[rates > 0].min()) if (rates > 0).any() else 1.0


def uvc(menu: Menu, budget: Budget) -> Plan:
    """The same iteration over a menu: a unit's count is its place among its edits, from the mildest to the cheapest."""
    question = Question.of(menu, budget)
    floor, caps = question.floor(), np.array(question.caps)
    cost = np.array(question.cost)
    offered = np.isfinite(menu.damage) & np.isfinite(cost).all(0)
    share = 1 / np.where(caps > 0, caps, 1.0)
    together = np.where(offered, np.tensordot(share, np.where(offered, cost, 0.0), 1), np.inf)
    chains = [_chain(menu.damage[u], together[u]) for u in range(len(menu.units))]
    cheapest = np.array([chain[-1] for chain in chains])
    if not question.fits(cheapest):
        raise BudgetError(f"prices find no plan within {written(budget)}", "use the allocator `lagrange`")
    places = primal_dual(
        [menu.damage[u, chain] for u, chain in enumerate(chains)],
        [cost[:, u, chain] for u, chain in enumerate(chains)],
        caps,
    )
    edits = np.array([chain[at] for chain, at in zip(chains, places, strict=True)])
    return question.answer(edits if question.fits(edits) else cheapest, "uvc", floor)


def _chain(damage: np.ndarray, cost: np.ndarray) -> list[int]:
    """A unit's edits from the mildest on, each cheaper than all before it."""
    order = [int(e) for e in np.lexsort((cost, damage)) if np.isfinite(cost[e]) and np.isfinite(damage[e])]
    chain: list[int] = []
    for e in order:
        if not chain or cost[e] < cost[chain[-1]]:
            chain.append(e)
    return chain
