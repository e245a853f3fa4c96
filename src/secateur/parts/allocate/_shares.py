"""Allocators that say what share of itself every unit should keep, and not what it damages: held to the budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secateur.parts.allocate import Question
from secateur.parts.edits.sparse import Sparse
from secateur.types import Menu, PlanError


def shares(question: Question) -> np.ndarray:
    """What every edit keeps of every unit, [units, edits]: of its weights, where it is a mask and no more; else of what
    it costs uncut. inf where it is not offered."""
    menu = question.menu
    cost = menu.cost.get("payload", question.cost[0])
    offered = np.isfinite(menu.damage) & np.all([np.isfinite(c) for c in question.cost], axis=0)
    cost = np.where(offered, cost, np.inf)
    most = np.where(offered, cost, 0.0).max(1, keepdims=True)
    out = cost / np.maximum(most, 1e-30)
    for at, edit in enumerate(menu.edits):
        if isinstance(edit, Sparse) and not edit.then:
            out[:, at] = np.where(offered[:, at], edit.share, np.inf)
    return out


def raised(question: Question, target: Callable[[float], np.ndarray]) -> np.ndarray:
    """Edits by shares: every unit the mildest that keeps no more than its target, or the cheapest where none does.

    `target(level)` [units] grows with the level, 0 to 1; the level is the highest at which the budget holds.
    """
    question.floor()  # raises, with what it would take, when nothing at all fits
    kept = shares(question)
    damage = np.where(np.isfinite(kept), question.menu.damage, np.inf)
    cost = np.where(np.isfinite(kept), question.cost[0], np.inf)
    cheapest = np.where(cost == cost.min(1, keepdims=True), damage, np.inf).argmin(1)

    def at(level: float) -> np.ndarray:
        within = kept <= target(level)[:, None] + 1e-9
        return np.where(within.any(1), np.where(within, damage, np.inf).argmin(1), cheapest)

    low, high, best = 0.0, 1.0, cheapest
    for level in (1.0, *[None] * 60):
        middle = (low + high) / 2 if level is None else level
        edits = at(middle)
        if question.fits(edits):
            low, best = middle, edits
        else:
            high = middle
    return best


def note(menu: Menu, name: str) -> np.ndarray:
    """A note of the menu, or what to do about it not being there."""
    if name not in menu.notes:
        known = ", ".join(menu.notes) or "none"
        raise PlanError(f"this menu has no note `{name}` (it has {known})", "survey again with `--edits sparse`")
    return np.asarray(menu.notes[name], dtype=float)
