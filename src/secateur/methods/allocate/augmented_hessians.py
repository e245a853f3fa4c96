"""Widths by a Hessian score that knows of other layers, and by bisection on what is measured.

Paper: Schaefer et al., Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision Post-Training Quantization
    (arXiv 2306.04879, 2023)
Wing: allocate
Shape: cut
Applies to: any chain of layers whose whole loss can be measured; and, as an allocator, the units of a menu
Use: secateur plan MENU --budget "4 bits/weight" --allocate augmented-hessians

A layer's own score h is its second-order damage. What it does together with another layer is the rest of the loss when
both are cut, e_ij = L(i, j) - L(i) - L(j) + L(nothing). The score is h_i + lambda / 2 sum_j e_ij. Layers are sorted by
it; for each width, from the highest, bisection finds the most of the least sensitive layers that can have it while the
measured quality holds, and the next width goes on among those.

RECONSTRUCTION: only the abstract could be read. The pair term and the scaling (both parts brought to equal medians
before lambda) are our reading; all pairs are n^2 measurements, neighbours alone n.
As an allocator there is nothing to measure: the menu's damages stand for h and for the loss, and the quality is the one
limit on their sum that just meets the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from secateur.parts.allocate import Question, written
from secateur.types import Budget, BudgetError, Menu, Plan

#: the loss with these layers cut, in any unit
Loss = Callable[[tuple[int, ...]], float]


def neighbours(n: int) -> list[tuple[int, int]]:
    """The pairs of a chain that stand beside each other."""
    return [(i, i + 1) for i in range(n - 1)]


def dependencies(loss: Loss, n: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """e_ij of these pairs, symmetric [n, n]; zero elsewhere, and everywhere if the loss adds up."""
    none, alone, out = loss(()), [loss((i,)) for i in range(n)], np.zeros((n, n))
    for i, j in pairs:
        out[i, j] = out[j, i] = loss((i, j)) - alone[i] - alone[j] + none
    return out


def augmented(h: np.ndarray, e: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """h + weight / 2 of what each layer does together with others, both parts at equal medians."""
    together = e.sum(1)
    size = np.median(np.abs(together[together != 0])) if (together != 0).any() else 1.0
    return h + weight / 2 * together * np.median(np.abs(h)) / size


def most(holds: Callable[[int], bool], n: int) -> int:
    """The largest k up to n for which it holds, by bisection: at most ceil(log2(n + 1)) questions; 0 needs none."""
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def widths(score: Sequence[np.ndarray], holds: Callable[[np.ndarray], bool]) -> np.ndarray:
    """For each layer the place of its width. `score[w]` [layers] is the sensitivity at width w, from the highest (which
    needs no score of its own) down; `holds` measures a whole choice."""
    chosen = np.zeros(len(score[0]), dtype=int)
    among = np.arange(len(chosen))
    for width in range(1, len(score)):
        order = among[np.argsort(score[width][among], kind="stable")]

        def lowered(k: int, order: np.ndarray = order, width: int = width, base: np.ndarray = chosen) -> np.ndarray:
            out = base.copy()
            out[order[:k]] = width
            return out

        among = order[: most(lambda k, lowered=lowered: holds(lowered(k)), len(order))]
        chosen = lowered(len(among))
    return chosen


def augmented_hessians(menu: Menu, budget: Budget) -> Plan:
    """The same rule over a menu: widths are its edits from the dearest on, damages stand for scores and for the loss.

    The limit on the total damage is the lowest that meets the budget, to a thousandth, by bisection from outside.
    """
    question = Question.of(menu, budget)
    floor, rows = question.floor(), np.arange(len(menu.units))
    places, damage = _places(question)
    scores = [damage[rows, some] - damage[rows, places[0]] for some in places]

    def at(limit: float) -> np.ndarray:
        chosen = widths(scores, lambda some: damage[rows, places[some, rows]].sum() <= limit)
        return places[chosen, rows]

    best, high = places[-1], float(damage[rows, places[-1]].sum())
    if not question.fits(best):
        raise BudgetError(f"this rule finds no plan within {written(budget)}", "use the allocator `lagrange`")
    low = max(float(damage[rows, places[0]].sum()), 1e-9 * high)
    if question.fits(places[0]):
        best = places[0]
    while not question.fits(places[0]) and high > low * 1.001:
        middle = (low * high) ** 0.5
        edits = at(middle)
        best, low, high = (edits, low, middle) if question.fits(edits) else (best, middle, high)
    return question.answer(best, "augmented-hessians", floor)


def _places(question: Question) -> tuple[np.ndarray, np.ndarray]:
    """The edit of every unit at every width, [widths, units], and damages: first each unit's mildest edit, then the
    edits of the menu from the dearest on (who cannot have one keeps the one before), last each unit's cheapest."""
    cost = np.array(question.cost)
    offered = np.isfinite(question.menu.damage) & np.isfinite(cost).all(0)
    damage = np.where(offered, question.menu.damage, np.inf)
    caps = np.array(question.caps)
    share = np.tensordot(1 / np.where(caps > 0, caps, 1.0), np.where(offered, cost, 0.0), 1)
    relative = share / np.where(offered, share, 0.0).max(1, keepdims=True).clip(1e-300)
    mean = relative.sum(0) / np.maximum(offered.sum(0), 1)
    places = [damage.argmin(1)]
    for edit in np.argsort(-mean, kind="stable"):
        places.append(np.where(offered[:, edit], edit, places[-1]))
    cheapest = np.where(offered, share, np.inf)
    least = np.where(cheapest == cheapest.min(1, keepdims=True), damage, np.inf).argmin(1)
    return np.array([*places, least]), damage
