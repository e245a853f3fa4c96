"""Whole plans on the clock: what they save of the uncut network's time, where a menu knows only a sum of products.

A sum over products timed alone knows nothing of what they do to each other in caches, and a plan takes those that
seemed fast. So a few plans of the menu are carried out with weights rounded to the nearest, written, and timed in turn
with the uncut network, so that a slow second slows both. What they save of its time over what they were to save is
what every saving on the menu is multiplied by. A survey tries plans at a few shares of the time; `cut` tries the plan
of its own budget, plans again with what it has learned, and tries that.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from secateur.cut.applying import carried_out
from secateur.cut.case import Case, Tell, silent
from secateur.cut.latency import PLAIN, beside
from secateur.cut.planning import planned
from secateur.parts import allocate as allocators
from secateur.parts.menus import save_menu
from secateur.types import Budget, BudgetError, Menu, Plan

#: windows or examples that a plan is carried out with: enough to run everything, too few to wait for
SOME = 4
#: shares of the uncut network's time whose plans a survey tries, or half of what can be saved at most
SHARES = (0.85, 0.7, 0.55)
#: plans that are tried at one budget, and how near what the last was to take must be to what it takes
TURNS, NEAR = 3, 0.02
#: a plan that saves, or costs, less than this share of the time tells nothing of savings
LEAST = 0.05
#: what savings can be multiplied by: beyond it a clock must have failed
BOUNDS = 0.4, 1.6


@dataclass(frozen=True)
class Trial:
    """A whole plan: the shares of the uncut network's time that it saves, by the sum of its products as they were timed
    and by the clock, and the seconds of the uncut network in turn with it."""

    asked: str
    summed: float
    saved: float
    uncut: float


def at_shares(case: Case, menu: Menu, folder: Path, tell: Tell) -> Menu:
    """The menu with its seconds as whole plans at a few shares of the time have them; saved in its folder."""
    if menu.about["trials"]:
        return menu
    uncut, trials = menu.about["uncut_seconds"], list[Trial]()
    seconds = np.where(np.isfinite(menu.damage), menu.cost["seconds"], np.inf)
    half = (1 + (float(seconds.min(1).sum()) + menu.fixed["seconds"]) / uncut) / 2
    shares = dict.fromkeys(max(one, half) for one in SHARES)
    for at, one in enumerate(shares):
        tell("whole plans", at, len(shares))
        try:
            chosen = planned(menu, Budget.parse(f"{1e3 * one * uncut:.6g} ms"), allocators.find("lagrange"))
        except BudgetError:  # nothing on the menu is so fast
            break
        trials.append(_trial(case, menu, chosen, folder))
    tell("whole plans", len(shares), len(shares))
    return _kept(_told(menu, trials), folder)


def at_budget(case: Case, menu: Menu, budget: str, allocate: str, folder: Path, tell: Tell) -> Menu:
    """The menu with its seconds as the whole plan for this budget has them; saved in its folder."""
    if any(one["asked"] == budget for one in menu.about["trials"]):
        return menu
    choose, trials = allocators.find(allocate), list[Trial]()
    for at in range(TURNS):
        tell("whole plans", at, TURNS)
        chosen = planned(menu, Budget.parse(budget), choose)
        trials.append(_trial(case, menu, chosen, folder))
        whole = trials[-1].uncut * (1 - trials[-1].saved)
        menu = _told(menu, trials)
        if abs(chosen.spent["seconds"] - whole) <= NEAR * whole:
            break
    tell("whole plans", TURNS, TURNS)
    return _kept(menu, folder)


def _trial(case: Case, menu: Menu, chosen: Plan, folder: Path) -> Trial:
    """Carry a plan out and time it."""
    place, uncut = folder / ".work" / "trial", float(menu.about["uncut_seconds"])
    few = replace(case, calib=case.calib[:SOME], check=case.check[:SOME], held=case.held[:SOME], clock=None)
    shutil.rmtree(place, ignore_errors=True)
    carried_out(few, chosen, place, folder, "nearest", 0, False, silent)
    now, found = beside(case, place)
    shutil.rmtree(place)
    return Trial(chosen.budget, (1 - chosen.spent["seconds"] / uncut) / menu.about["saved"], 1 - found / now, now)


def _told(menu: Menu, trials: Sequence[Trial]) -> Menu:
    """The menu with its savings multiplied by what these trials say, all savings counting as they are large, and in the
    seconds that the uncut network took beside them."""
    about = dict(menu.about)
    telling = [one for one in trials if abs(one.summed) >= LEAST]
    if telling:
        said = sum(one.summed * one.saved for one in telling) / sum(one.summed**2 for one in telling)
        about["saved"] = min(max(said, BOUNDS[0]), BOUNDS[1])
    if trials:
        about["uncut_seconds"] = median(one.uncut for one in trials)
    about["trials"] = [asdict(one) for one in trials]
    pace, factor = (about[name] / menu.about[name] for name in ("uncut_seconds", "saved"))
    narrower = tuple(replace(_scaled(one, menu, factor, pace), about=about) for one in menu.narrower)
    notes = {**menu.notes, PLAIN: pace * menu.notes[PLAIN]}
    return replace(_scaled(menu, menu, factor, pace), about=about, narrower=narrower, notes=notes)


def _scaled(one: Menu, whole: Menu, factor: float, pace: float) -> Menu:
    """A menu of a network, the whole one or a narrower: what it saves of the whole one's seconds is multiplied by a
    factor, and all of its seconds by the pace."""
    plain = np.nan_to_num(whole.notes[PLAIN])  # a row that is no unit has no products
    rest = whole.about["uncut_seconds"] - float(plain.sum())
    seconds = pace * np.maximum(plain[:, None] + factor * (one.cost["seconds"] - plain[:, None]), 0.0)
    fixed = pace * max(rest + factor * (one.fixed["seconds"] - rest), 0.0)
    return replace(one, cost={**one.cost, "seconds": seconds}, fixed={**one.fixed, "seconds": fixed})


def _kept(menu: Menu, folder: Path) -> Menu:
    save_menu(menu, folder)
    return menu
