"""The best plan on a menu for a budget, with its damage corrected and its caps in absolute numbers."""

from __future__ import annotations

from dataclasses import replace

from secateur.cut.choosing import best_shape, best_width, sure
from secateur.cut.correcting import corrected
from secateur.types import Allocator, Budget, Menu, Plan


def planned(menu: Menu, budget: Budget, choose: Allocator) -> Plan:
    """A plan with its damage corrected, and its caps in absolute numbers, for the whole file."""
    plan = corrected(menu, _best(menu, budget, choose))
    return replace(plan, about={**plan.about, "caps": caps_of(menu, budget)})


def caps_of(menu: Menu, budget: Budget) -> dict[str, float]:
    """A budget in absolute numbers, for the whole file."""
    caps = {name: cap + menu.fixed.get(name, 0.0) for name, cap in budget.absolute(menu).items()}
    if "payload" in caps:
        caps["bits_per_weight"] = 8 * caps.pop("payload") / menu.weights
    return caps | dict(budget.caps)


def _best(menu: Menu, budget: Budget, choose: Allocator) -> Plan:
    """The plan of least damage on the menu: of all shapes, or of all widths of what its prices hang on. On a language
    model's menu a smaller shape must lead bits alone by more than it may be wrong."""
    if "one_shape" in menu.about:
        best = best_shape(menu, budget, choose)
    else:
        best = best_width(menu, budget, choose) if menu.narrower else choose(menu, budget)
    return sure(menu, budget, choose, best) if "kv" in menu.cost else best
