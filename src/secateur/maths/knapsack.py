"""One choice for every unit, the least damage, within every cap: the multiple-choice knapsack, with a proven floor.

At the best prices of the caps (`maths/prices`) any choice that fits lies above the proven floor by

    damage - floor = the sum of its units' regrets at these prices + the worth of what it leaves unspent

so a good choice has little regret and little change. `lagrange` lets every unit decide at those prices, spends what is
left, exchanges pairs, and searches the units that are nearly undecided; what has more regret than the gap cannot be in
a better choice, and where the gap stays open an integer program settles the few edits that remain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.maths.prices import NOISE, NothingFits, Problem, best_prices, steps
from secateur.maths.program import choose

__all__ = ["Choice", "NothingFits", "exact", "floor", "lagrange"]


@dataclass(frozen=True)
class Choice:
    """`edits[u]` is the edit of unit `u`; `price[k]` the damage that one more unit of resource `k` would save.

    `floor` is at most the damage of any choice that fits, and equals `damage` (to rounding) where this one is proven
    to be the best.
    """

    edits: np.ndarray
    damage: float
    floor: float
    price: np.ndarray


def lagrange(
    cost: Sequence[np.ndarray], caps: Sequence[float], damage: np.ndarray, close: float = 1e-4, nodes: int = 100
) -> Choice:
    """The best choice found within every cap, and a proven floor under all of them.

    `cost` holds one array units x edits per cap, `damage` is units x edits; inf in either marks what is not offered.
    Only where the search leaves a gap above `close` of the damage (few units, or several caps) does the integer program
    look at `nodes` branches more. Ties go to the cheaper, then the earlier.

    >>> best = lagrange([np.array([[1, 2], [1, 2]])], [3], np.array([[5.0, 1.0], [9.0, 2.0]]))
    >>> best.edits.tolist(), best.damage
    ([0, 1], 7.0)
    """
    return _solve(Problem.read(cost, caps, damage), close, node_limit=nodes)


def exact(cost: Sequence[np.ndarray], caps: Sequence[float], damage: np.ndarray, seconds: float = 60.0) -> Choice:
    """The best choice there is, by search and an integer program over what the prices could not rule out.

    After `seconds` the best found so far is returned; its floor then says how far from the best it can be.
    """
    return _solve(Problem.read(cost, caps, damage), close=0.0, time_limit=seconds)


def floor(cost: Sequence[np.ndarray], caps: Sequence[float], damage: np.ndarray) -> float:
    """What no choice within the caps can go below: the Lagrangian bound, for judging a choice from elsewhere."""
    problem = Problem.read(cost, caps, damage)
    return problem.bound(best_prices(problem))


def _solve(problem: Problem, close: float, **limits: Any) -> Choice:
    if not len(problem.rows):
        return Choice(np.zeros(0, dtype=int), 0.0, 0.0, np.zeros(len(problem.caps)))
    price = best_prices(problem)
    bound, noise = problem.bound(price), problem.noise(price)
    edits = _exchange(problem, price, _fill(problem, price, _repair(problem, price)))
    total, proven = problem.total(edits), bound
    if total - bound > max(0.01 * close * abs(total), noise):
        edits, complete = _search(problem, price, edits, bound)
        total = problem.total(edits)
        proven = max(bound, total - noise) if complete else bound
    if total - proven > max(close * abs(total), 2 * noise):
        allowed = problem.regret(price) < total - bound
        allowed[problem.rows, edits] = True
        found, proven = _program(problem, allowed, total - bound, **limits)
        proven = max(bound, proven)
        if found is not None and problem.total(found) < total - noise:
            edits, total = found, problem.total(found)
    return Choice(edits, total, min(proven, total), price)


def _repair(problem: Problem, price: np.ndarray, most: int = 100) -> np.ndarray:
    """Every unit's own decision, cheapened until all caps are met, first where the least regret frees most.

    Where that goes in circles (several caps that nearly contradict each other) the integer program finds a start.
    """
    edits, regret, rows = problem.decide(price), problem.regret(price), problem.rows
    for _ in range(most):
        over = problem.spent(edits) - problem.caps
        if (over <= 0).all():
            return edits
        weight = np.where(over > 0, 1 / problem.scale, 0.0)
        priced = problem.priced(weight)
        freed = priced[rows, edits][:, None] - priced
        useful = (freed > 0) & np.isfinite(regret)
        more = np.maximum(regret - regret[rows, edits][:, None], 0.0)
        toll = np.divide(more, freed, out=np.full_like(more, np.inf), where=useful)
        unit = np.argsort(toll.min(1), kind="stable")
        unit = unit[useful[unit].any(1)]
        after = toll[unit].argmin(1)
        enough = int(np.searchsorted(np.cumsum(freed[unit, after]), float(weight @ np.maximum(over, 0.0)))) + 1
        edits[unit[:enough]] = after[:enough]
    size = float(problem.noise(price) / NOISE)
    found, _ = _program(problem, np.isfinite(problem.damage), size, time_limit=60.0)
    if found is None:
        raise NothingFits
    return found


def _fill(problem: Problem, price: np.ndarray, edits: np.ndarray) -> np.ndarray:
    """Spend what is left: upgrades in the order of what they save per cost; one that does not fit blocks its unit."""
    edits = edits.copy()
    worth = max(float(price @ problem.caps), 1e-300)
    # a cap without a price must still not be spent for nothing
    priced = problem.priced(price + 1e-3 * worth / problem.scale)
    unit, before, after, _ = steps(priced, problem.damage, edits)
    extra = problem.cost[:, unit, after] - problem.cost[:, unit, before]
    left = problem.caps - problem.spent(edits)
    too_much = np.flatnonzero((extra > left[:, None]).any(0))
    blocked = np.full(len(edits), len(unit))
    np.minimum.at(blocked, unit[too_much], too_much)
    for i in np.flatnonzero(np.arange(len(unit)) < blocked[unit]).tolist():
        if i >= blocked[unit[i]]:
            continue
        if (extra[:, i] <= left).all():
            edits[unit[i]] = after[i]
            left = left - extra[:, i]
        else:
            blocked[unit[i]] = i
    return edits


def _exchange(problem: Problem, price: np.ndarray, edits: np.ndarray, most: int = 100, moves: int = 500) -> np.ndarray:
    """Change two units at once (or one) while that saves damage and fits, among the moves with the least regret."""
    edits, rows, regret = edits.copy(), problem.rows, problem.regret(price)
    noise = problem.noise(price)
    for _ in range(most):
        more = regret - regret[rows, edits][:, None]
        more[rows, edits] = np.inf
        near = np.argsort(more, axis=None, kind="stable")[:moves]
        u, e = np.unravel_index(near[np.isfinite(more.ravel()[near])], more.shape)
        change = np.r_[0.0, problem.damage[u, e] - problem.damage[u, edits[u]]]  # the first move is to do nothing
        extra = np.c_[np.zeros(len(problem.caps)), problem.cost[:, u, e] - problem.cost[:, u, edits[u]]]
        left = problem.caps - problem.spent(edits)
        both = change[:, None] + change
        both[1:, 1:][u[:, None] == u] = np.inf
        both[(extra[:, :, None] + extra[:, None, :] > left[:, None, None]).any(0)] = np.inf
        i, j = np.unravel_index(both.argmin(), both.shape)
        if not both[i, j] < -noise:
            break
        for m in {int(i), int(j)} - {0}:
            edits[u[m - 1]] = e[m - 1]
    return edits


def _search(
    problem: Problem, price: np.ndarray, edits: np.ndarray, bound: float, depth: int = 400
) -> tuple[np.ndarray, bool]:
    """Try the nearly undecided units together, least regret first; the best choice, and whether none can be better.

    A state is what is left of every cap and the regret so far. In the end its distance from the floor is the regret
    plus the worth of what is left, so a state (or an edit) whose regret alone reaches the best distance known is out.
    """
    regret, noise, rows = problem.regret(price), problem.noise(price), problem.rows
    width = 8000 // 8 ** (len(problem.caps) - 1)
    start = np.where(regret[rows, edits] == 0, edits, problem.decide(price))
    goal = problem.total(edits) - bound
    others = regret.copy()
    others[rows, start] = np.inf
    nearest = others.min(1)
    left, sorrow = (problem.caps - problem.spent(start))[None], np.zeros(1)
    trail: list[tuple[int, np.ndarray, np.ndarray]] = []
    winner, complete = None, True
    for u in np.argsort(nearest, kind="stable").tolist():
        if nearest[u] >= goal - noise:
            break
        if len(trail) == depth:
            complete = False
            break
        options = np.flatnonzero(regret[u] < goal)
        extra = problem.cost[:, u, options] - problem.cost[:, u, start[u]][:, None]
        left = (left[:, None, :] - extra.T).reshape(-1, len(problem.caps))
        sorrow = (sorrow[:, None] + regret[u, options]).ravel()
        distance = sorrow + left @ price
        done = np.where((left >= 0).all(1), distance, np.inf)
        if done.min() < goal - noise:
            at = int(done.argmin())
            goal, winner = float(done[at]), (len(trail), at // len(options), u, options[at % len(options)])
        keep = _worth_keeping(left, sorrow, distance, goal - noise)
        complete &= len(keep) <= width
        keep = keep[: width if complete else width // 8]  # once it proves nothing any more, a narrow beam goes on
        trail.append((u, keep // len(options), options[keep % len(options)]))
        left, sorrow = left[keep], sorrow[keep]
    if winner is None:
        return edits, complete
    step, state, u, option = winner
    found = start.copy()
    found[u] = option
    for u, parent, chosen in reversed(trail[:step]):
        found[u], state = chosen[state], parent[state]
    return (found, complete) if problem.fits(found) else (edits, False)


def _worth_keeping(left: np.ndarray, sorrow: np.ndarray, distance: np.ndarray, goal: float) -> np.ndarray:
    """The states that can still win, least regret first; of those with as much left (one cap: or more) the best."""
    alive = np.flatnonzero(sorrow < goal)
    order = alive[np.lexsort((distance[alive], *-left[alive].T))]
    if left.shape[1] == 1:
        best = np.minimum.accumulate(distance[order])
        fresh = np.r_[True, distance[order][1:] < best[:-1]]
    else:
        fresh = np.r_[True, (left[order][1:] != left[order][:-1]).any(1)]
    order = order[fresh[: len(order)]]
    return order[np.argsort(sorrow[order], kind="stable")]


def _program(problem: Problem, allowed: np.ndarray, size: float, **limits: Any) -> tuple[np.ndarray | None, float]:
    """The best of the allowed choices by integer program, and what it proved about them. `size` is a damage of note."""
    base = np.where(allowed, problem.cost[0], np.inf).argmin(1)
    unit, edit = np.nonzero(allowed & (allowed.sum(1, keepdims=True) > 1))
    gain = problem.damage[unit, edit] - problem.damage[unit, base[unit]]
    extra = problem.cost[:, unit, edit] - problem.cost[:, unit, base[unit]]

    def choice(taken: np.ndarray) -> np.ndarray:
        edits = base.copy()
        edits[unit[taken]] = edit[taken]
        return edits

    left = problem.caps - problem.spent(base)
    taken, proven = choose(gain / size, unit, extra, left, lambda taken: problem.fits(choice(taken)), **limits)
    return None if taken is None else choice(taken), problem.total(base) + proven * size
