"""What a few of a menu's own plans damage, carried out as wholes: the correction of a menu with channels to take.

Groups of channels are measured one by one, with nothing fitted anew behind them, and all together at one share each. A
plan is neither: it takes much where that seemed cheap, and the more the fewer examples there were to see it on. On the
keyword spotter with 80 examples for correction, plans at half of the FLOPs damaged twice what was expected of them. So
the menu's own plans at three shares of the FLOPs are carried out in memory, and the correction goes through them.
"""

from __future__ import annotations

from dataclasses import replace

from secateur.cut.case import Tell
from secateur.cut.channels import Groups
from secateur.cut.choosing import best_width
from secateur.measure.compare import Comparison
from secateur.parts import allocate as allocators
from secateur.parts.correction import Correction
from secateur.parts.edits.trunks import left_of
from secateur.types import Budget, BudgetError, Menu

#: shares of the FLOPs whose plans are measured, and examples to walk with
SHARES, WALKED = (0.8, 0.6, 0.45), 256


def with_plans(menu: Menu, groups: Groups, tell: Tell) -> Menu:
    """The menu with its correction fitted on plans of its own at a few shares of the FLOPs, where there are any."""
    case = groups.case
    if not len(case.check):
        return menu
    expected: dict[int, float] = {}
    found: dict[int, Comparison] = {}
    for at, share in enumerate(SHARES):
        tell("plans", at, len(SHARES))
        try:
            budget, choose = Budget.parse(f"{100 * share:g}% flops"), allocators.find("lagrange")
            chosen = best_width(menu, budget, choose) if menu.narrower else choose(menu, budget)
        except BudgetError:  # as far as channels go on this menu
            break
        plain = groups.plain
        with case.stream.loaded():
            edits = {unit.name: chosen.edits[unit.name] for unit in groups.units}
            groups.take(edits, widths=left_of(case.trunks, chosen.edits), examples=WALKED)
            expected[at], found[at] = chosen.damage, groups.compared(plain)
    tell("plans", len(SHARES), len(SHARES))
    if not found:
        return menu
    correction = Correction.fit(expected, found)
    about = {"correction": correction.told(), "common_error": correction.error}
    made = replace(menu, about={**menu.about, **about})
    return replace(made, narrower=tuple(replace(one, about=made.about) for one in menu.narrower))
