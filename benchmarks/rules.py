"""Menus to plan from, and the rules of others to plan with: what the allocation benchmarks share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks import published
from secateur.parts.allocate import Question, written
from secateur.parts.edits import parse
from secateur.types import Budget, BudgetError, Matrix, Menu, Plan, Unit

GROUPS = {2: (128, 64, 32), 3: (128, 64, 32), 4: (128, 64, 32), 5: (128, 64, 32), 6: (128, 64, 32), 8: (128, 64, 32)}
EDITS = [f"int(bits={bits}, group={group})" for bits, groups in GROUPS.items() for group in groups] + [
    "fp8()",
    "keep()",
]


def made(units: int, edits: int, seed: int) -> Menu:
    """A menu like a language model's: sizes and sensitivities spread log-normally, damage near but not on 4^-bits."""
    rng = np.random.default_rng(seed)
    size = 128 * np.round(np.exp(rng.normal(10, 1, units)))
    words = [EDITS[i] for i in np.unique(np.linspace(0, len(EDITS) - 1, edits).astype(int))]
    chosen = tuple(parse(word) for word in words)
    bits = np.array(
        [
            getattr(edit, "bits", {"fp8()": 8, "keep()": 16}.get(word, 0))
            for edit, word in zip(chosen, words, strict=True)
        ]
    )
    group = np.array([getattr(edit, "group", 0) for edit in chosen])
    per_weight = bits + np.where(group > 0, 16 / np.maximum(group, 1), 0)
    payload = np.round(size[:, None] * per_weight / 8)
    fine = np.where(group > 0, (np.maximum(group, 1) / 128.0) ** 0.25, 1.0)
    damage = np.exp(rng.normal(0, 1.5, (units, 1))) * size[:, None] / size.sum() * 4.0**-bits * fine
    damage = damage * np.exp(rng.normal(0, 0.2, damage.shape))
    damage[:, -1] = 0
    names = tuple(
        Unit(f"unit.{i}", "linear", (Matrix(f"unit.{i}", int(s) // 128, 128, "x"),)) for i, s in enumerate(size)
    )
    return Menu(names, chosen, {"payload": payload}, damage, 0.1 * damage, {"payload": 0.0}, int(size.sum()))


def measured(model: str = "Qwen3-4B-Instruct-2507") -> Menu | None:
    """A real one: KL of a model with one tensor lowered, type by type as measured; None where the tables are absent."""
    one = next((one for one in published.read() if one.model == model), None)
    if one is None:
        return None
    types = sorted(one.singles, key=one.bits.__getitem__)
    menu = one.menu((*types, "bf16"))
    damage = np.array([one.singles[q] for q in types] + [np.zeros(len(one.tensors))]).T
    damage = np.where(np.isnan(damage), np.inf, damage)
    return replace(menu, damage=damage, error=0 * menu.damage)


def threshold(menu: Menu, budget: Budget) -> Plan:
    """The rule of Model-Optimizer's AutoQuantize by KL: every unit takes its cheapest edit under one limit on damage.

    The limit is the lowest that fits the budget, by bisection; nothing looks at the sum.
    """
    question = Question.of(menu, budget)
    floor = question.floor()
    order = np.argsort(question.cost[0], axis=1, kind="stable")
    damage = np.take_along_axis(np.where(np.isfinite(menu.damage), menu.damage, np.inf), order, 1)
    rows = np.arange(len(damage))

    def at(limit: float) -> np.ndarray:
        under = damage <= max(limit, 0.0)
        return order[rows, np.where(under.any(1), under.argmax(1), damage.argmin(1))]

    limits = np.unique(damage[np.isfinite(damage)])
    low, high = 0, len(limits) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if question.fits(at(limits[middle])) else (middle + 1, high)
    return question.answer(at(limits[low]), "threshold", floor)


def two_widths(menu: Menu, budget: Budget) -> Plan:
    """The rule of NNCF's and Olive's mixed precision: units by their damage at the lower of two edits, the least
    sensitive get it, the rest the higher one, in the ratio that the budget allows.

    They fix the pair (4 and 8 bits); here it is the best by predicted damage of all pairs that the menu has.
    """
    question = Question.of(menu, budget)
    floor, cost = question.floor(), question.cost[0]
    damage = np.where(np.isfinite(menu.damage) & np.isfinite(cost), menu.damage, np.inf)
    rows, mildest = np.arange(len(damage)), damage.argmin(1)
    everywhere = [np.where(np.isfinite(damage[:, e]), e, mildest) for e in range(damage.shape[1])]
    best, least = None, np.inf
    for low in everywhere:
        order = np.argsort(damage[rows, low], kind="stable")
        for high in everywhere:
            dearer = (cost[rows, low] - cost[rows, high])[order]
            spent = cost[rows, high].sum() + np.cumsum(np.r_[0.0, dearer])
            # how many of the least sensitive must be low: the first number that fits
            fits = np.flatnonzero(spent <= question.caps[0])
            if cost[rows, low].sum() > cost[rows, high].sum() or not len(fits):
                continue
            edits = high.copy()
            edits[order[: fits[0]]] = low[order[: fits[0]]]
            if damage[rows, edits].sum() < least:
                best, least = edits, damage[rows, edits].sum()
    if best is None:
        raise BudgetError(f"no two edits keep the whole model within {written(budget)}", "mix more of them")
    return question.answer(best, "two-widths", floor)


def textbook(menu: Menu, budget: Budget) -> Plan:
    """One multiplier by bisection, then the best upgrades per byte that still fit: the plain Lagrangian heuristic."""
    question = Question.of(menu, budget)
    floor, cost = question.floor(), np.where(np.isfinite(question.cost[0]), question.cost[0], np.inf)
    damage = np.where(np.isfinite(menu.damage), menu.damage, np.inf)
    rows, low, high = np.arange(len(damage)), 0.0, 1.0

    def at(price: float) -> np.ndarray:
        return (damage + price * np.where(np.isfinite(cost), cost, 1e300)).argmin(1)

    while not question.fits(at(high)):
        high *= 4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if question.fits(at(middle)) else (middle, high)
    edits = at(high)
    while True:
        left = question.caps[0] - cost[rows, edits].sum()
        saved, extra = damage[rows, edits][:, None] - damage, cost - cost[rows, edits][:, None]
        able = (saved > 0) & (extra <= left)
        rate = np.divide(saved, np.maximum(extra, 1e-12), out=np.full_like(saved, -1.0), where=able)
        if rate.max() <= 0:
            return question.answer(edits, "textbook", floor)
        unit, edit = np.unravel_index(rate.argmax(), rate.shape)
        edits[unit] = edit
