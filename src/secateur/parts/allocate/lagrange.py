"""The default: a price for every capped resource, the change spent, and a floor. Ten thousand units a second."""

from __future__ import annotations

from secateur.maths import knapsack
from secateur.parts.allocate import Question
from secateur.types import Budget, Menu, Plan


def lagrange(menu: Menu, budget: Budget) -> Plan:
    """The least damage within the budget, as far as prices and a short search go; `bound` says how far that may be."""
    return Question.of(menu, budget).solve(knapsack.lagrange, "lagrange")
