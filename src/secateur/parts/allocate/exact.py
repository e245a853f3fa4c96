"""The best plan there is, proven: an integer program over what the prices leave open. For some hundreds of units."""

from __future__ import annotations

from secateur.maths import knapsack
from secateur.parts.allocate import Question
from secateur.types import Budget, Menu, Plan


def exact(menu: Menu, budget: Budget) -> Plan:
    """The least damage within the budget; after a minute the best found, and a `bound` under both."""
    return Question.of(menu, budget).solve(knapsack.exact, "exact")
