"""What a capped resource is worth: the knapsack's problem, the prices of its caps, and the floor that prices prove.

Put a price on each capped resource and every unit decides alone: the edit with the least `damage + price * cost`. What
these decisions sum to, less the price of the caps, lies below the damage of *every* choice that fits (Everett 1963,
Shoham and Gersho 1988). The best prices are those with the highest floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linprog

#: relative size of what counts as rounding noise in a sum of damages
NOISE = 1e-12


class NothingFits(ValueError):
    """No choice meets the caps. `cap` is the one that cannot be met even alone, and `least` what it would have to be.

    `cap` is None when each can be met alone but not all of them together.
    """

    def __init__(self, cap: int | None = None, least: float = math.nan):
        self.cap, self.least = cap, least
        super().__init__(
            "no choice meets all caps together" if cap is None else f"cap {cap} is below the least possible, {least!r}"
        )


@dataclass(frozen=True)
class Problem:
    """One edit for every unit: `cost` caps x units x edits, `caps`, `damage` units x edits with inf where not offered.

    Integer costs keep exact sums (to 2**53) and their cap is rounded down; other caps get 1e-12 of slack for rounding.
    """

    cost: np.ndarray
    caps: np.ndarray
    damage: np.ndarray

    @classmethod
    def read(cls, cost: Sequence[np.ndarray], caps: Sequence[float], damage: np.ndarray) -> Problem:
        """Clean what came in; NothingFits if some cap cannot be met even when the others are forgotten."""
        damage = np.array(damage, dtype=float)
        costs = np.array([np.broadcast_to(c, damage.shape) for c in cost], dtype=float)
        if np.isnan(damage).any() or np.isnan(costs).any() or (damage == -np.inf).any() or (costs < 0).any():
            raise ValueError("damages must be numbers and costs numbers from zero up; inf marks an edit not offered")
        offered = np.isfinite(damage) & np.isfinite(costs).all(0)
        if not offered.any(1).all():
            raise ValueError(f"unit {int(np.argmin(offered.any(1)))} is offered no edit at all")
        damage[~offered], costs[:, ~offered] = np.inf, 0.0
        whole = (costs == np.floor(costs)).all((1, 2))
        limits = np.minimum(np.asarray(caps, dtype=float), costs.max(2, initial=0.0).sum(1))
        limits = np.where(whole, np.floor(limits), limits * (1 + NOISE))
        for k, limit in enumerate(limits):
            if (least := math.fsum(np.where(offered, costs[k], np.inf).min(1))) > limit:
                raise NothingFits(k, least)
        return cls(costs, limits, damage)

    @cached_property
    def rows(self) -> np.ndarray:
        return np.arange(len(self.damage))

    @cached_property
    def scale(self) -> np.ndarray:
        """A cap's worth of each resource, to make different resources comparable."""
        return np.where(self.caps > 0, self.caps, 1.0)

    def total(self, edits: np.ndarray) -> float:
        """The damage of a choice, summed without rounding error."""
        return math.fsum(self.damage[self.rows, edits])

    def spent(self, edits: np.ndarray) -> np.ndarray:
        """What a choice costs, per cap, summed without rounding error."""
        return np.array([math.fsum(c[self.rows, edits]) for c in self.cost])

    def fits(self, edits: np.ndarray) -> bool:
        return bool((self.spent(edits) <= self.caps).all())

    def priced(self, price: np.ndarray) -> np.ndarray:
        """What every edit costs at these prices, in damage."""
        return np.tensordot(price, self.cost, 1)

    def noise(self, price: np.ndarray) -> float:
        """How small a difference of damage means nothing, in sums of this size."""
        return NOISE * (abs(self.total(self.decide(price))) + float(price @ self.caps))

    def bound(self, price: np.ndarray) -> float:
        """The floor that these prices prove, lowered by what rounding may have added."""
        least = (self.damage + self.priced(price)).min(1)
        paid = float(price @ self.caps)
        return math.fsum(least) - paid - NOISE * (math.fsum(np.abs(least)) + paid)

    def regret(self, price: np.ndarray) -> np.ndarray:
        """How much worse than the unit's own best each edit is at these prices; rounding noise is no regret."""
        paid = self.priced(price)
        value = self.damage + paid
        least = value.min(1, keepdims=True)
        regret = value - least
        regret[regret <= NOISE * (np.abs(least) + paid)] = 0.0
        return regret

    def decide(self, price: np.ndarray) -> np.ndarray:
        """Every unit's own best edit at these prices; of equals the cheapest, then the first."""
        cheap = self.priced(1 / self.scale)
        return np.where(self.regret(price) == 0, cheap, np.inf).argmin(1)


def best_prices(problem: Problem) -> np.ndarray:
    """The prices with the highest floor: exact for one cap, by cutting planes for several; zero where a cap is idle."""
    if len(problem.caps) > 1:
        return _cutting_planes(problem)
    cost, offered = problem.cost[0], np.isfinite(problem.damage)
    least = np.where(offered, cost, np.inf).min(1, keepdims=True)
    cheapest = np.where(offered & (cost == least), problem.damage, np.inf).argmin(1)
    unit, before, after, rate = steps(cost, problem.damage, cheapest)
    over = np.cumsum(cost[unit, after] - cost[unit, before]) > problem.caps[0] - problem.spent(cheapest)[0]
    return np.array([rate[over.argmax()] if over.any() else 0.0])


def steps(
    cost: np.ndarray, damage: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Upgrades along every unit's lower convex hull from `start`: unit, edit before, edit after, damage saved per cost.

    The best come first, ties by unit; a unit's own steps keep their order.
    """
    found, active, at = [], np.arange(len(damage)), start.copy()
    last = np.full(len(damage), np.inf)
    while len(active) or not found:
        here = at[active]
        extra = cost[active] - cost[active, here][:, None]
        saved = damage[active, here][:, None] - damage[active]
        useful = (extra > 0) & (saved > 0)
        rate = np.divide(saved, extra, out=np.zeros_like(extra), where=useful)
        best = rate.max(1)
        # of equal rates the longest step, so that no point inside an edge is a corner
        after = np.where(useful & (rate == best[:, None]), extra, -1.0).argmax(1)
        more = best > 0
        active, here, after = active[more], here[more], after[more]
        last[active] = np.minimum(last[active], best[more])  # rounding must not put a later step first
        found.append((active, here, after, last[active]))
        at[active] = after
    unit, before, after, rate = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((np.arange(len(unit)), unit, -rate))
    return unit[order], before[order], after[order], rate[order]


def _cutting_planes(problem: Problem, most: int = 200, close: float = 1e-6) -> np.ndarray:
    """Kelley's method on the concave dual: each decision is a plane above it; try the top of all planes, look again."""
    scale, k = problem.scale, len(problem.caps)
    worst = np.where(np.isfinite(problem.damage), problem.damage, -np.inf).max(1).sum()
    span = max(float(worst - problem.damage.min(1).sum()), 1e-300)
    box, price, best, best_price = span, np.zeros(k), -np.inf, np.zeros(k)
    slopes, heights = [], []
    for _ in range(most):
        edits = problem.decide(price / scale)
        slopes.append((problem.spent(edits) - problem.caps) / scale)
        heights.append(problem.total(edits))
        if (value := heights[-1] + float(price @ slopes[-1])) > best:
            best, best_price = value, price
        size = max(abs(best), 1e-6 * span)  # the program's own tolerance is 1e-7: let it count in what matters
        top = linprog(
            np.r_[np.zeros(k), -1.0],
            A_ub=np.c_[-np.array(slopes), np.ones(len(slopes))],
            b_ub=np.array(heights) / size,
            bounds=[(0, box / size)] * k + [(None, None)],
        )
        if top.x is None:
            break
        price = top.x[:k] * size
        if -top.fun * size - best <= close * size:
            if price.max() < box * (1 - 1e-9):
                break
            _prove_impossible(problem, price / scale)
            box *= 10
    return best_price / scale


def _prove_impossible(problem: Problem, price: np.ndarray) -> None:
    """If even the cheapest choice at these prices costs more than the caps are worth, none meets all of them."""
    priced = np.where(np.isfinite(problem.damage), problem.priced(price), np.inf)
    if math.fsum(priced.min(1)) > float(price @ problem.caps) * (1 + 1e-9):
        raise NothingFits
