"""A quick floor is a floor: below the best plan of every menu, tight for one cap, and no reason to choose worse."""

from dataclasses import replace

import numpy as np
import pytest

from secateur.cut.choosing import best_width
from secateur.parts import allocate
from secateur.parts.allocate import quick_floor
from secateur.parts.edits import parse
from secateur.types import Budget, BudgetError, Matrix, Menu, Unit

EDITS = tuple(parse(f"int(bits={bits}, group=64)") for bits in (2, 3, 4, 6, 8))


def menu(seed: int, units: int = 8) -> Menu:
    draw = np.random.default_rng(seed)
    some = tuple(Unit(f"u{u}", "linear", (Matrix(f"u{u}.weight", 8, 8, f"u{u}"),), u) for u in range(units))
    size, bits = draw.integers(50, 400, (units, 1)), np.array([2.0, 3, 4, 6, 8])
    damage = np.exp(draw.normal(size=(units, 1))) * 4.0**-bits
    damage[0, 0] = np.inf
    cost = {"bytes": size * bits, "flops": draw.integers(20, 90, (units, 5)).cumsum(1).astype(float)}
    fixed = {"bytes": 10.0, "flops": 5.0}
    return Menu(some, EDITS, cost, damage, damage / 10, fixed, int(size.sum()), {}, {})


@pytest.mark.parametrize("seed", range(6))
def test_no_plan_is_below_it(seed):
    one, choose = menu(seed), allocate.find()
    for words in ("55% bytes", "70% bytes, 60% flops", "100% bytes"):
        budget = Budget.parse(words)
        made = choose(one, budget)
        low = quick_floor(one, budget)
        assert low <= made.bound + 1e-12 and low > (0.7 if "," not in words else 0.3) * made.damage


def test_of_several_widths_the_best_is_found_and_an_impossible_budget_is_said():
    choose = allocate.find()
    wide = menu(0)
    narrower = tuple(
        replace(wide, cost={name: table * share for name, table in wide.cost.items()}, damage=wide.damage + more)
        for share, more in ((0.8, 1e-3), (0.6, 4e-3), (0.4, 2e-2))
    )
    every = replace(wide, narrower=narrower)
    for words in ("90% bytes", "45% bytes, 60% flops", "25% bytes", "12% bytes"):
        budget = Budget.parse(words).fixed_by(every)
        plans = []
        for one in (wide, *narrower):
            try:
                plans.append(choose(one, budget))
            except BudgetError:
                continue
        made = best_width(every, Budget.parse(words), choose)
        assert made.damage == min(plan.damage for plan in plans) and made.bound <= made.damage
    with pytest.raises(BudgetError, match="cheapest plan"):
        best_width(every, Budget.parse("5% bytes"), choose)
