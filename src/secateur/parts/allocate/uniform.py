"""The same edit everywhere: what most people do, and what an allocator has to beat."""

from __future__ import annotations

import numpy as np

from secateur.parts.allocate import Question, written
from secateur.types import Budget, BudgetError, Menu, Plan


def uniform(menu: Menu, budget: Budget) -> Plan:
    """The one edit that fits and damages least when every unit has it; a unit that cannot have it is damaged least."""
    question = Question.of(menu, budget)
    offered = np.isfinite(menu.damage) & np.all([np.isfinite(c) for c in question.cost], axis=0)
    mildest = np.where(offered, menu.damage, np.inf).argmin(1)
    rows = np.arange(len(menu.units))
    choices = [np.where(offered[:, e], e, mildest) for e in range(len(menu.edits)) if offered[:, e].any()]
    fitting = [edits for edits in choices if question.fits(edits)]
    if not fitting:
        question.floor()  # raises, with what it would take, when nothing at all fits
        message = f"no single edit keeps the whole model within {written(budget)}"
        raise BudgetError(message, "mix edits: use the allocator `lagrange`")
    return question.answer(min(fitting, key=lambda edits: menu.damage[rows, edits].sum()), "uniform")
