"""The best plan where shapes are to be chosen as well: for files whose blocks all have one, every shape is a small
knapsack over the rest.

A shape says how many channels, heads and experts every block has left and how many blocks are gone. One of them is the
network's own, where bits alone decide: so a plan from the whole menu is never expected to damage more than one of bits
alone. There may be thousands of shapes, and few are worth a knapsack: at any price of the capped resources every row
decides alone, so one sum per shape is a floor under all of its plans (`maths/prices`). The shape with the lowest floor
is looked at next, its own best prices raise the floors of the others, and what has a floor above the best plan found
is never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from secateur.maths.prices import NothingFits, Problem, best_prices
from secateur.parts.allocate import Question, quick_floor
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.heads import Heads
from secateur.types import Allocator, Budget, BudgetError, Edit, Menu, Plan, SecateurError

#: shapes that an allocator is asked for at most: one that is no solver may miss the floors of all
MOST = 24


def best_shape(menu: Menu, budget: Budget, choose: Allocator) -> Plan:
    """The plan of least damage among all shapes, its floor that of them all."""
    shapes = _Shapes(menu, budget)
    found: dict[int, Plan] = {}
    for at in shapes.in_turn(found):
        try:
            found[at] = choose(shapes.menu(at), budget)
            shapes.floor[at] = max(shapes.floor[at], found[at].bound)
        except BudgetError:  # the caps contradict each other at this shape
            shapes.floor[at] = np.inf
        if len(found) >= MOST:
            break
    if not found:
        return choose(shapes.menu(shapes.nearest), budget)  # says what is asked too much
    best = min(found.values(), key=lambda plan: plan.damage)
    return replace(best, bound=min(float(shapes.floor.min()), best.damage))


def best_width(menu: Menu, budget: Budget, choose: Allocator) -> Plan:
    """The plan of least damage on the menu and on its narrower ones, its floor that of them all."""
    found: list[Plan] = []
    fixed, menus = budget.fixed_by(menu), (menu, *menu.narrower)
    for floor, at in sorted((quick_floor(one, fixed), at) for at, one in enumerate(menus)):
        if found and floor >= min(plan.damage for plan in found):
            break  # nothing on this menu, or on those behind it, is better
        try:
            found.append(choose(menus[at], fixed))
        except BudgetError:
            continue
    if not found:
        return choose(menus[-1], fixed)  # says why there is none
    best = min(found, key=lambda plan: plan.damage)
    return replace(best, bound=min(plan.bound for plan in found))


def sure(menu: Menu, budget: Budget, choose: Allocator, best: Plan) -> Plan:
    """The best plan, or that of bits alone, where it takes something of the shape and its lead is within its standard
    error. A lead of 8% of `lm-small` at 3 MB in compressed-tensors was none when it was measured (docs/log.md)."""
    shaping = np.array([_key(edit) is not None for edit in menu.edits])
    if all(_key(edit) is None for edit in best.edits.values()):
        return best
    try:
        plain = choose(replace(menu, damage=np.where(shaping, np.inf, menu.damage)), budget)
    except SecateurError:  # bits alone cannot keep to the budget
        return best
    wins = plain.damage - best.damage > best.error
    return best if wins else replace(plain, bound=min(best.bound, plain.damage))


@dataclass
class _Shapes:
    """All shapes that a menu offers, the network's own first, each with what its plans cannot go below."""

    menu_: Menu
    budget: Budget

    def __post_init__(self) -> None:
        self.question = Question.of(self.menu_, self.budget)
        self.floor = np.where(self.fit, -np.inf, np.inf)

    @cached_property
    def keys(self) -> list[Any]:
        """What every edit of the menu does to the shape: None for nothing."""
        return [_key(edit) for edit in self.menu_.edits]

    @cached_property
    def columns(self) -> Mapping[Any, list[int]]:
        """The edits of the menu by what they do to the shape."""
        out: dict[Any, list[int]] = {None: []}
        for e, key in enumerate(self.keys):
            out.setdefault(key, []).append(e)
        return out

    @cached_property
    def kinds(self) -> dict[str, list[Any]]:
        """By kind of cut: all that may be left of it in every block, None for everything."""
        out: dict[str, list[Any]] = {}
        for key in self.columns:
            if isinstance(key, tuple):
                out.setdefault(key[0], [None]).append(key)
        return out

    @cached_property
    def rows(self) -> np.ndarray:
        """The kind of every row by its number among the kinds, -1 for rows that can lose nothing of themselves."""
        offered = np.isfinite(self.menu_.damage)
        out = np.full(len(offered), -1)
        for k, keys in enumerate(self.kinds.values()):
            out[offered[:, [e for key in keys[1:] for e in self.columns[key]]].any(1)] = k
        return out

    @cached_property
    def gone(self) -> np.ndarray:
        """Which rows are gone after each number of blocks, [blocks that may go + 1, rows]."""
        order = dict(self.menu_.about["one_shape"])["order"]
        blocks = np.array([-1 if unit.block is None else unit.block for unit in self.menu_.units])
        return np.array([np.isin(blocks, order[:n]) for n in range(len(order) + 1)])

    @cached_property
    def all(self) -> list[tuple[Any, ...]]:
        """Every shape: what is left of each kind, and the number of blocks that are gone."""
        return list(product(*self.kinds.values(), range(len(self.gone))))

    @cached_property
    def fit(self) -> np.ndarray:
        """Whether the cheapest edits of a shape keep to each of the caps."""
        return np.all([self.least[k] <= cap for k, cap in enumerate(self.question.caps)], axis=0)

    @cached_property
    def least(self) -> list[np.ndarray]:
        """The least that a shape costs, by cap."""
        offered = np.isfinite(self.menu_.damage)
        return [self._sums(np.where(offered, cost, np.inf)) for cost in self.question.cost]

    @property
    def nearest(self) -> int:
        """The shape that comes nearest to the caps."""
        caps = self.question.caps
        over = [least / max(cap, 1.0) for least, cap in zip(self.least, caps, strict=True)]
        return int(np.max(over, axis=0).argmin())

    def in_turn(self, found: Mapping[int, Plan]) -> Iterator[int]:
        """Shapes worth a knapsack, one after the other: the network's own, then by their floors."""
        if self.fit[0]:
            self._raise(0)
            yield 0
        raised, asked = {0}, {0}
        while len(asked) < len(self.all):
            open_ = np.where(np.isin(np.arange(len(self.all)), list(asked)), np.inf, self.floor)
            at = int(open_.argmin())
            if open_[at] >= min((plan.damage for plan in found.values()), default=np.inf):
                return
            if at in raised:
                asked.add(at)
                yield at
            else:
                raised.add(at)
                self._raise(at)

    def menu(self, at: int) -> Menu:
        """The menu with the edits of one shape alone."""
        damage = np.full_like(self.menu_.damage, np.inf)
        *left, gone = self.all[at]
        for k, key in enumerate((*left, None)):
            self._offer(damage, self.rows == (k if k < len(left) else -1), key)
        if (away := self.gone[gone]).any():
            damage[away] = np.inf
            self._offer(damage, away, "gone")
        return replace(self.menu_, damage=damage)

    def _offer(self, damage: np.ndarray, rows: np.ndarray, key: Any) -> None:
        """Let these rows have the edits that do this to the shape."""
        some = np.ix_(rows, np.array(self.columns[key]))
        damage[some] = self.menu_.damage[some]

    def _raise(self, at: int) -> None:
        """Raise the floors of all shapes by the best prices of one; a shape that they prove impossible has none."""
        try:
            problem = Problem.read(self.question.cost, self.question.caps, self.menu(at).damage)
            price = best_prices(problem)
        except NothingFits:
            self.floor[at] = np.inf
            return
        paid = np.tensordot(price, np.array([np.where(np.isfinite(c), c, 0.0) for c in self.question.cost]), 1)
        floor = self._sums(self.menu_.damage + paid) - float(price @ np.array(self.question.caps))
        self.floor = np.maximum(self.floor, floor)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """For every shape the sum over all rows of the least value among what they can have, in the order of `all`."""
        went = values[:, self.columns["gone"]].min(1) if "gone" in self.columns else np.full(len(values), np.inf)
        total: np.ndarray | None = None
        for k, keys in enumerate((*self.kinds.values(), [None])):
            mine = self.rows == (k if k < len(self.kinds) else -1)
            least = np.array([values[mine][:, self.columns[key]].min(1) for key in keys])  # keys x rows
            some = np.where(self.gone[None, :, mine], went[mine], least[:, None]).sum(2)  # keys x gone
            if k < len(self.kinds):
                total = some if total is None else (total[:, None] + some[None]).reshape(-1, some.shape[1])
            else:
                total = some if total is None else total + some
        assert total is not None
        return total.flatten()


def _key(edit: Edit) -> Any:
    """What an edit does to the shape of its unit."""
    if isinstance(edit, Drop):
        return "gone"
    if isinstance(edit, Experts):
        return "experts", edit.keep, edit.merge
    if isinstance(edit, Channels | Heads):
        return type(edit).__name__, edit.keep
    return None
