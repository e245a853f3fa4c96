"""Every budget at once: the best plan at some forty of them, and what the page needs to show each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur import words
from secateur.types import Budget, BudgetError, Edit, Menu

if TYPE_CHECKING:
    import numpy as np

    from secateur.report import Run

#: how many budgets are planned for; fewer where several caps or widths make a plan take its time, and of a menu with
#: more rows than `MANY`, so that the page stays small
BUDGETS, FEWER, FEW, MANY = 40, 16, 12, 4000
#: units times edits above which a plan under several caps takes a second
LARGE = 5000
#: units times edits up to which the page holds the whole menu; beyond, only the edits that some plan uses
WHOLE = 60_000


@dataclass(frozen=True)
class Point:
    """One budget: what its best plan spends (as `Plan.spent`) and is expected to damage, and the edit of every unit by
    its place on the menu. `choice` is empty where nobody knows. `asked` is a budget that gives this plan again, `menu`
    the one of the menu and its narrower ones whose prices it is made at."""

    spent: Mapping[str, float]
    damage: float
    error: float
    floor: float
    choice: tuple[int, ...] = ()
    asked: str = ""
    menu: int = 0


def lead(run: Run) -> str:
    """The resource that was asked for, which the budgets go through; of several the first as they are shown."""
    capped = [one for one in words.asked_first(run.spent, run.caps) if one in run.caps]
    return capped[0] if capped else "bits_per_weight"


def curve(menu: Menu, by: str = "bits_per_weight", caps: Mapping[str, float] | None = None) -> list[Point]:
    """The best plan at budgets of the resource `by` from the cheapest to the dearest that still costs something,
    evenly in ratio, or evenly where nothing may be left (of a cache, say); other `caps`, in absolute numbers for the
    whole file, hold at all of them."""
    import numpy as np

    from secateur.cut import plan
    from secateur.parts.allocate import spent, written

    name = "payload" if by == "bits_per_weight" else by
    others = {resource: cap for resource, cap in (caps or {}).items() if resource != by}
    if name not in menu.cost:
        return []
    ends: list[float] = []
    for one in (menu, *menu.narrower):
        offered = np.isfinite(one.damage) & np.isfinite(one.cost[name])
        lean = np.where(offered, one.cost[name], np.inf).argmin(1)
        worth = offered & (one.damage > 0)
        dear = np.where(worth.any(1), np.where(worth, one.cost[name], -np.inf).argmax(1), lean)
        ends += [spent(one, np.asarray(edits))[by] for edits in (lean, dear)]
    place = {edit: at for at, edit in reversed(list(enumerate(menu.edits)))}
    found: dict[float, Point] = {}
    slow = bool(others or menu.narrower)
    count = FEW if len(menu.units) > MANY or (slow and menu.damage.size > LARGE) else FEWER if slow else BUDGETS
    least, most = min(ends), max(ends)
    sizes = np.geomspace(least * (1 + 1e-9), most, count) if least > 0 else np.linspace(most / count, most, count)
    for size in sizes if most > 0 else ():
        try:
            (one,) = plan(menu, [written(Budget({by: _up(by, float(size)), **others}))])
        except BudgetError:  # rounded to below the cheapest plan, or the other caps are too tight for it
            continue
        choice = tuple(place[one.edits[unit.name]] for unit in menu.units)
        asked = written(Budget({by: _up(by, one.spent[by]), **others}))
        found[one.spent[by]] = Point(
            one.spent, one.damage, one.error, one.bound, choice, asked, _menu_of(menu, one.edits)
        )
    return list(found.values())


def _up(by: str, amount: float) -> float:
    """An amount with as many places as people write, rounded up so that what was meant fits."""
    places = {"bits_per_weight": 4, "seconds": 7}.get(by, 0)
    return math.ceil(amount * 10**places - 1e-6) / 10**places


def _menu_of(menu: Menu, edits: Mapping[str, Edit]) -> int:
    """Which of a menu and its narrower ones offers these edits."""
    offers = menu.that_offers(edits)
    return next(at for at, one in enumerate((menu, *menu.narrower)) if one is offers)


def ours(run: Run) -> Point | None:
    """The plan of this run as a point among the others; None where nobody has said what it spends and damages."""
    from secateur.parts.edits import parse, text

    if not (run.planned and lead(run) in run.spent):
        return None
    choice, menu = (), 0
    if run.menu is not None:
        place = {text(edit): at for at, edit in reversed(list(enumerate(run.menu.edits)))}
        by_name = {row.name: place.get(row.edit) for row in run.rows}
        places = [by_name.get(unit.name) for unit in run.menu.units]
        choice = tuple(at for at in places if at is not None)
        choice = choice if len(choice) == len(places) else ()
        menu = _menu_of(run.menu, {row.name: parse(row.edit) for row in run.rows})
    return Point(run.spent, *run.planned, run.planned[0], choice, run.asked, menu)


def in_order(points: Sequence[Point], mine: Point | None, by: str = "bits_per_weight") -> list[Point]:
    """The plans that the page can show, from lean to rich; the run's own stands among them."""
    everyone = [*points, *([mine] if mine else [])]
    return sorted((point for point in everyone if point.choice), key=lambda point: (point.spent[by], point is mine))


def data(menu: Menu | None, points: Sequence[Point], mine: Point | None, by: str = "bits_per_weight") -> dict[str, Any]:
    """What the page's script knows: units, edits, what each costs and damages, and the plans from lean to rich.

    Damages are the menu's own; the script scales them so that a plan's units add up to what is expected of the plan.
    Prices hang on how wide an image model's trunks are left, so every menu that some plan is made at has its own.
    """
    import numpy as np

    from secateur.parts.edits import text

    plans = in_order(points, mine, by)
    if menu is None or not plans or "bytes" not in menu.cost:
        return {}
    menus = [(menu, *menu.narrower)[at] for at in sorted({point.menu for point in plans})]
    table = {at: i for i, at in enumerate(sorted({point.menu for point in plans}))}
    offered = np.any([np.isfinite(one.damage) & np.isfinite(one.cost["bytes"]) for one in menus], axis=0)
    used = {e for point in plans for e in point.choice}
    whole = len(menu.units) * len(menu.edits) <= WHOLE
    shown = [e for e in range(len(menu.edits)) if e in used or (whole and offered[:, e].any())]
    at = {e: i for i, e in enumerate(shown)}
    kept = [e for e, edit in enumerate(menu.edits) if text(edit) == "keep()"]
    before = np.isfinite(menu.cost["bytes"][:, kept[:1]])
    return {
        "units": [
            [unit.name, unit.kind, unit.block, max(unit.size, 1), [[m.key, m.rows, m.cols] for m in unit.matrices[:64]]]
            for unit in menu.units
        ],
        "by": by,
        "edits": [text(menu.edits[e]) for e in shown],
        "prices": [_prices(one, shown, by) for one in menus],
        "before": _numbers(menu.cost["bytes"][:, kept[:1]], before) if kept else [],
        "plans": [_plan(point, at, table) for point in plans],
        "ours": next((i for i, point in enumerate(plans) if point is mine), None),
    }


def _prices(menu: Menu, shown: Sequence[int], by: str) -> dict[str, Any]:
    """What one menu knows of every unit with every edit that is shown."""
    import numpy as np

    offered = (np.isfinite(menu.damage) & np.isfinite(menu.cost["bytes"]))[:, shown]
    told = {"bytes": menu.cost["bytes"], "payload": _payload(menu), "damage": menu.damage}
    told |= {"by": menu.cost[by]} if by in menu.cost and by != "bytes" else {}
    return {name: _numbers(values[:, shown], offered) for name, values in told.items()} | {
        "fixed": menu.fixed.get("bytes", 0.0)
    }


def _payload(menu: Menu) -> np.ndarray:
    """What bits are counted from; what does not count (`--over linear`) has no payload, but its bytes."""
    import numpy as np

    payload = menu.cost.get("payload", menu.cost["bytes"])
    return np.where(payload > 0, payload, menu.cost["bytes"])


def _plan(point: Point, at: Mapping[int, int], table: Mapping[int, int]) -> dict[str, Any]:
    told = {"spent": dict(point.spent), "damage": point.damage, "error": point.error, "floor": point.floor}
    return told | {"asked": point.asked, "prices": table[point.menu], "choice": [at[e] for e in point.choice]}


def _numbers(values: np.ndarray, offered: np.ndarray) -> list[list[float | int | None]]:
    """Rows of numbers as short as they can be; None where an edit is not offered."""

    def short(value: float) -> float | int:
        return int(value) if float(value).is_integer() else float(f"{value:.5g}")

    return [
        [short(value) if can and math.isfinite(value) else None for value, can in zip(row, some, strict=True)]
        for row, some in zip(values.tolist(), offered.tolist(), strict=True)
    ]
