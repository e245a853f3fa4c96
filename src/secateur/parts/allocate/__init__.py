"""Allocators: which edit every unit gets, so that little is damaged and the budget holds. One file, one allocator.

An allocator is the function of its file's name and takes `(menu, budget)`. A method may be one too: it is found by its
path like any file here. What all of them share is here: reading the budget as caps on the menu's own resources, and
pricing what was chosen. `lagrange` is the default.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from secateur.maths import knapsack
from secateur.types import Allocator, Budget, BudgetError, Edit, Menu, Plan, PlanError

DEFAULT = "lagrange"


def names() -> list[str]:
    """The allocators there are, methods among them."""
    return sorted(_places())


def _places() -> dict[str, str]:
    """The module of every allocator by name; of a method's file no more than its text is looked at."""
    here = Path(__file__).parent
    package = here.parents[1]
    found = {}
    for file in sorted((package / "methods").glob("*/*.py")):
        own = rf"^(def {file.stem}\(menu: Menu, budget: Budget\)|{file.stem}: Allocator = )"
        if re.search(own, file.read_text(encoding="utf-8"), re.MULTILINE):
            found[file.stem.replace("_", "-")] = f"secateur.methods.{file.parent.name}.{file.stem}"
    return found | {file.stem: f"{__name__}.{file.stem}" for file in here.glob("*.py") if file.stem[0] != "_"}


def find(name: str = DEFAULT) -> Allocator:
    """The allocator of this name, or a PlanError that names the nearest."""
    places = _places()
    place = places.get(name.replace("_", "-"))
    if place is None:
        near = get_close_matches(name, places, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(sorted(places))}"
        raise PlanError(f"there is no allocator `{name}`", hint)
    return getattr(import_module(place), place.rpartition(".")[2])


@dataclass(frozen=True)
class Question:
    """A budget put to a menu: the capped resources, what every edit costs in them, and how much there is."""

    menu: Menu
    budget: Budget
    resources: tuple[str, ...]
    cost: tuple[np.ndarray, ...]
    caps: tuple[float, ...]

    @classmethod
    def of(cls, menu: Menu, budget: Budget) -> Question:
        caps = _caps(menu, budget)
        offered = np.isfinite(menu.damage) & np.all([np.isfinite(menu.cost[r]) for r in caps], axis=0)
        if not (some := offered.any(1)).all():
            name = menu.units[int(np.argmin(some))].name
            raise PlanError(f"`{name}` has no edit on this menu", "survey again with an edit it can have, say `keep()`")
        return cls(menu, budget, tuple(caps), tuple(menu.cost[r] for r in caps), tuple(caps.values()))

    def solve(self, solver: Callable[..., knapsack.Choice], name: str) -> Plan:
        """The plan that a knapsack solver chooses."""
        choice = self._or_budget_error(solver)
        return self.answer(choice.edits, name, choice.floor)

    def answer(self, edits: np.ndarray, name: str, floor: float | None = None) -> Plan:
        """The plan that these edits (one index a unit) make; without a floor, the one that prices prove."""
        floor = self.floor() if floor is None else floor
        chosen = {unit.name: self.menu.edits[e] for unit, e in zip(self.menu.units, edits.tolist(), strict=True)}
        damage, error = expected(self.menu, edits)
        plain = {
            key: value.item() if isinstance(value, np.generic) else value for key, value in self.menu.about.items()
        }
        about = {key: value for key, value in plain.items() if isinstance(value, str | int | float | None)}
        about["allocate"] = name
        return Plan(chosen, spent(self.menu, edits), damage, error, min(floor, damage), written(self.budget), about)

    def floor(self) -> float:
        """What no plan within the budget can go below; BudgetError where there is none."""
        return self._or_budget_error(knapsack.floor)

    def fits(self, edits: np.ndarray) -> bool:
        rows = np.arange(len(edits))
        return all(math.fsum(c[rows, edits]) <= cap for c, cap in zip(self.cost, self.caps, strict=True))

    def _or_budget_error(self, solver: Callable[..., Any]) -> Any:
        try:
            return solver(self.cost, self.caps, self.menu.damage)
        except knapsack.NothingFits as why:
            raise (self._too_little(why.cap) if why.cap is not None else self._contradiction()) from None

    def _too_little(self, k: int) -> BudgetError:
        """One cap that no plan can meet, what it would have to be, and the unit that takes most."""
        cost = np.where(np.isfinite(self.menu.damage), self.cost[k], np.inf)
        least, fixed = cost.min(1), self.menu.fixed.get(self.resources[k], 0.0)
        total = fixed + math.fsum(least)
        needs = say(self.menu, self.resources[k], total)
        message = f"asked for {written(self.budget)}, but the cheapest plan on this menu needs {needs}"
        if fixed > 0.5 * total:
            reasons = Counter(one["reason"] for one in self.menu.about.get("left", ()))
            why = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
            return BudgetError(
                message, f"what no edit touches takes {fixed / total:.0%} of that{why}: cut more of the model"
            )
        if why := self._stuck(least, total):
            return BudgetError(message, f"{why}, or ask for at least {needs}")
        big = int(least.argmax())
        edit = self.menu.edits[int(cost[big].argmin())]
        share = f"`{self.menu.units[big].name}` takes {least[big] / total:.0%} of that, with `{edit}`"
        return BudgetError(message, f"{share}: give it a cheaper edit, stop pinning it, or ask for at least {needs}")

    def _stuck(self, least: np.ndarray, total: float) -> str:
        """What can only be plain numbers, where that is a third of the cheapest plan: why, and what to do."""
        reasons = {one["unit"]: one["reason"] for one in self.menu.about.get("skipped", ())}
        taken: dict[str, list[float]] = {}
        for unit, one in zip(self.menu.units, least.tolist(), strict=True):
            if unit.name in reasons:
                taken.setdefault(reasons[unit.name], []).append(one)
        if not taken or sum(map(sum, taken.values())) < total / 3:
            return ""
        reason, amounts = max(taken.items(), key=lambda item: sum(item[1]))
        mend = "loosen --keep" if "--keep" in reason else "say --over all" if "--over" in reason else ""
        if not mend:
            packed = self.menu.about.get("format") == "packed"
            mend = "cut more of the model" if packed else "take another format (packed holds most)"
        n = f"{len(amounts)} unit{'s' * (len(amounts) > 1)}"
        return f"{sum(amounts) / total:.0%} of that are {n} that can only be plain numbers ({reason}): {mend}"

    def _contradiction(self) -> BudgetError:
        """Caps that can each be met, but not together: how far the first can go under the others."""
        damage = np.where(np.isfinite(self.menu.damage), self.cost[0], np.inf)
        message = f"no plan on this menu meets `{written(self.budget)}` together"
        try:
            least = knapsack.lagrange(self.cost[1:], self.caps[1:], damage).damage
        except knapsack.NothingFits:
            return BudgetError(message, "loosen one of the caps")
        name = self.resources[0]
        needs = say(self.menu, name, least + self.menu.fixed.get(name, 0.0))
        return BudgetError(message, f"with the other caps as they are, it takes {needs}")


def quick_floor(menu: Menu, budget: Budget) -> float:
    """What no plan on the menu within the budget can go below, in some milliseconds: what one price on one of the caps
    proves. `Question.floor` is higher, and takes longer."""
    damage = np.where(np.isfinite(menu.damage), menu.damage, np.inf)
    best = float(damage.min(1).sum())
    for resource, cap in _caps(menu, budget).items():
        cost = np.where(np.isfinite(menu.cost[resource]), menu.cost[resource], np.inf)
        one = damage[np.isfinite(damage)].max(initial=0.0) / max(cost[np.isfinite(cost)].max(initial=0.0), 1e-300)
        for price in one * np.geomspace(1e-4, 1e4, 65):
            best = max(best, float((damage + price * cost).min(1).sum()) - price * cap)
    return best


def _caps(menu: Menu, budget: Budget) -> dict[str, float]:
    """The budget in the menu's own resources, for the units alone.

    4.126 * weights / 8 is rounded, and may land a hair under a whole byte that 8 * bytes / weights allows, or over one
    that it does not: the cap is the last byte whose quoted figure keeps to what was asked.
    """
    caps = budget.absolute(menu)
    asked = budget.caps.get("bits_per_weight")
    if asked is not None and "bits_per_weight" not in budget.share:
        byte, fixed = math.floor(caps["payload"]), menu.fixed.get("payload", 0.0)
        offered = menu.cost["payload"][np.isfinite(menu.cost["payload"])]
        if (offered == np.floor(offered)).all():
            near = (byte - 1, byte, byte + 1)
            caps["payload"] = max(b for b in near if 8 * (b + fixed) / menu.weights <= asked or b < byte)
    return caps


def spent(menu: Menu, edits: np.ndarray) -> dict[str, float]:
    """What a choice spends, for the whole file: every resource of the menu, the payload as bits per weight."""
    rows, out = np.arange(len(edits)), {}
    for resource, cost in menu.cost.items():
        total = math.fsum(cost[rows, edits]) + menu.fixed.get(resource, 0.0)
        if resource == "payload":
            out["bits_per_weight"] = 8 * total / menu.weights
        else:
            out[resource] = int(total) if total.is_integer() else total
    return out


def expected(menu: Menu, edits: np.ndarray) -> tuple[float, float]:
    """The damage of a choice and its standard error, in nats per token.

    The units' own errors are independent and add in squares; the error of the correction is common to all of them and
    grows with the damage (`common_error`, relative).
    """
    rows = np.arange(len(edits))
    damage, own = math.fsum(menu.damage[rows, edits]), math.sqrt(math.fsum(menu.error[rows, edits] ** 2))
    return damage, math.hypot(own, float(menu.about.get("common_error", 0.0)) * damage)


def price(menu: Menu, budget: Budget, chosen: Mapping[str, Edit], name: str = "by hand") -> Plan:
    """The plan that somebody wrote: what it spends and damages by this menu. It must keep to the budget."""
    question = Question.of(menu, budget)
    places = {edit: i for i, edit in reversed(list(enumerate(menu.edits)))}
    edits = np.array([places[chosen[unit.name]] for unit in menu.units], dtype=int)
    plan = question.answer(edits, name)
    if not question.fits(edits):
        totals = [math.fsum(c[np.arange(len(edits)), edits]) for c in question.cost]
        over = next(k for k, total in enumerate(totals) if total > question.caps[k])
        needs = say(menu, question.resources[over], totals[over] + menu.fixed.get(question.resources[over], 0.0))
        message = f"this plan needs {needs}, more than its budget of {written(budget)}"
        raise BudgetError(message, "give some unit a cheaper edit, or change the budget")
    return plan


#: how a resource is written: the unit, how many of it make one of the menu's, and decimals
_SAID = {
    "payload": ("bits/weight", 1.0, 4),
    "bytes": ("bytes", 1.0, 0),
    "seconds": ("ms", 1e3, 4),
    "flops": ("flops", 1.0, 0),
    "kv": ("bytes/token", 1.0, 0),
}


def say(menu: Menu, resource: str, amount: float) -> str:
    """An amount of a resource as one would ask for it, rounded up so that asking for it is enough."""
    unit, factor, decimals = _SAID.get(resource, (resource, 1.0, 4))
    number = 8 * amount / menu.weights if resource == "payload" else amount * factor
    number = math.ceil(number * 10**decimals - 1e-9) / 10**decimals
    return f"{number:,.{decimals}f} {unit}".replace(",", "_" if decimals == 0 else "")


def written(budget: Budget) -> str:
    """A budget as text that `Budget.parse` reads."""
    units = {"bits_per_weight": "bits/weight", "seconds": "s", "kv": "bytes/token"}
    caps = [f"{value!r} {units.get(name, name)}" for name, value in budget.caps.items()]
    share = [f"{100 * value!r}% {units.get(name, name)}" for name, value in budget.share.items()]
    return budget.text or ", ".join(caps + share)
