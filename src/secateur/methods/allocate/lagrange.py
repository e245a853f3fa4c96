"""One price for all: every unit takes the edit that is best at that price, which is set so that the budget holds.

Paper: Shoham and Gersho, Efficient bit allocation for an arbitrary set of quantizers; after Everett 1963 (1988)
Link: https://doi.org/10.1109/29.90373
Wing: allocate
Shape: cut
Applies to: any menu, any number of capped resources
Use: secateur plan MENU --budget "4.25 bits/weight" --allocate lagrange

Nothing is assumed of the damage curves: no formula, no convexity, no common widths. Where the paper stops at the last
plan under the budget we go on: what is left is spent, pairs are exchanged, and what remains undecided is searched, so
that the plan is nearly always the proven best (`maths/knapsack`). `frontier` is the paper's own sweep.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from secateur.maths.prices import steps
from secateur.parts import allocate
from secateur.types import Budget, Menu, Plan


def lagrange(menu: Menu, budget: Budget) -> Plan:
    """The plan of the default allocator."""
    return allocate.find("lagrange")(menu, budget)


class Frontier(NamedTuple):
    """Every plan on the lower hull, from the cheapest to the best: `price` is what one more of the resource then saves.

    `spent` counts the whole file, in the menu's unit of the resource; `damage` is in nats per token.
    """

    spent: np.ndarray
    damage: np.ndarray
    price: np.ndarray


def frontier(menu: Menu, resource: str = "bytes") -> Frontier:
    """Damage against cost for all budgets at once, in one sort: no plan lies below the line through these points."""
    cost, offered = menu.cost[resource], np.isfinite(menu.damage) & np.isfinite(menu.cost[resource])
    cost, damage = np.where(offered, cost, 0.0), np.where(offered, menu.damage, np.inf)
    least = np.where(offered, cost, np.inf).min(1, keepdims=True)
    start = np.where(offered & (cost == least), damage, np.inf).argmin(1)
    unit, before, after, rate = steps(cost, damage, start)
    rows = np.arange(len(menu.units))
    spent = cost[rows, start].sum() + np.r_[0.0, np.cumsum(cost[unit, after] - cost[unit, before])]
    saved = np.r_[0.0, np.cumsum(damage[unit, before] - damage[unit, after])]
    corner = np.r_[np.diff(rate, prepend=np.inf) < 0, True]  # equal rates lie on one line: only its ends are corners
    total = damage[rows, start].sum() - saved
    return Frontier(spent[corner] + menu.fixed.get(resource, 0.0), total[corner], np.r_[rate, 0.0][corner])
