"""Does the plan damage less than the better of two rules of others, on the same menu at the same budget?

    PYTHONPATH=src python -m benchmarks.claims.lagrange

The rules: the ratio rule (cheapest first, then always the best upgrade per byte that still fits), and one limit on the
damage of every unit, by bisection. The effect is our damage over the smaller of theirs; menus of 60 units and 8 edits.
"""

from __future__ import annotations

from benchmarks import harness, rules
from secateur.parts import allocate
from secateur.types import Budget

ABOUT: dict[str, list[float]] = {"over the ratio rule": [], "over the limit rule": [], "over the floor": []}


def trial(seed: int) -> tuple[float, float]:
    menu = rules.made(60, 8, seed)
    budget = Budget.parse(f"{2.75 + 0.25 * (seed % 8)} bits/weight")
    plan = allocate.find("lagrange")(menu, budget)
    ratio, limit = allocate.find("greedy")(menu, budget).damage, rules.threshold(menu, budget).damage
    for name, other in zip(ABOUT, (ratio, limit, plan.bound), strict=True):
        ABOUT[name].append(round(plan.damage / other, 6))
    return plan.damage, min(ratio, limit)


if __name__ == "__main__":
    text = "less damage than the better of the ratio rule and the limit rule at the same budget"
    harness.claim("lagrange", text, trial, seeds=40, about=ABOUT)
