"""The ratio rule: from the cheapest plan on, always the upgrade that saves most per cost and still fits."""

from __future__ import annotations

import heapq

import numpy as np

from secateur.parts.allocate import Question, written
from secateur.types import Budget, BudgetError, Menu, Plan


def greedy(menu: Menu, budget: Budget) -> Plan:
    """What a greedy rule reaches. Several caps count together, each as a share of itself."""
    question = Question.of(menu, budget)
    cost = np.array(question.cost)
    caps = np.array(question.caps)
    weight = 1 / np.where(caps > 0, caps, 1.0)
    offered = np.isfinite(menu.damage) & np.isfinite(cost).all(0)
    cost[:, ~offered] = np.inf
    together = np.tensordot(weight, cost, 1)
    damage = np.where(offered, menu.damage, np.inf)
    edits = np.where(together == together.min(1, keepdims=True), damage, np.inf).argmin(1)
    floor = question.floor()  # raises when nothing at all fits
    if not question.fits(edits):
        message = f"the greedy rule finds no plan within {written(budget)}"
        raise BudgetError(message, "use the allocator `lagrange`")
    left = caps - cost[:, np.arange(len(edits)), edits].sum(1)

    def upgrade(u: int) -> tuple[float, int, int] | None:
        """The unit's best upgrade that fits now, as a heap's entry."""
        extra = together[u] - together[u, edits[u]]
        saved = damage[u, edits[u]] - damage[u]
        fits = (cost[:, u] - cost[:, u, edits[u]][:, None] <= left[:, None]).all(0) & (saved > 0)
        if not fits.any():
            return None
        rate = np.divide(saved, extra, out=np.where(fits, np.inf, 0.0), where=fits & (extra > 0))  # inf: no dearer
        return -float(rate.max()), u, int(rate.argmax())

    heap = [entry for u in range(len(edits)) if (entry := upgrade(u))]
    heapq.heapify(heap)
    while heap:
        entry = heapq.heappop(heap)
        _, u, e = entry
        extra = cost[:, u, e] - cost[:, u, edits[u]]
        if (extra <= left).all():
            left = left - extra
            edits[u] = e
        if entry := upgrade(u):
            heapq.heappush(heap, entry)
    return question.answer(edits, "greedy", floor)
