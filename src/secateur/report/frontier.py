"""Every budget at once: the best plan at some forty of them, and what the page needs to show each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.types import BudgetError, Menu

if TYPE_CHECKING:
    import numpy as np

    from secateur.report import Run

#: how many budgets are planned for; of a menu with more rows than `MANY` fewer, so that the page stays small
BUDGETS, FEW, MANY = 40, 12, 4000
#: units times edits up to which the page holds the whole menu; beyond, only the edits that some plan uses
WHOLE = 60_000


@dataclass(frozen=True)
class Point:
    """One budget: what its best plan spends and is expected to damage, and the edit of every unit by its place on the
    menu. `choice` is empty where nobody knows."""

    bits: float
    bytes: float | None
    damage: float
    error: float
    floor: float
    choice: tuple[int, ...] = ()


def curve(menu: Menu) -> list[Point]:
    """The best plan at budgets from the cheapest to the dearest that still costs something, evenly in ratio."""
    import numpy as np

    from secateur.cut import plan
    from secateur.parts.allocate import spent

    if "payload" not in menu.cost:
        return []
    offered = np.isfinite(menu.damage) & np.isfinite(menu.cost["payload"])
    least = np.where(offered, menu.cost["payload"], np.inf).argmin(1)
    most = np.where(offered & (menu.damage > 0), menu.cost["payload"], -np.inf).argmax(1)
    low, high = (spent(menu, np.asarray(edits))["bits_per_weight"] for edits in (least, most))
    place = {edit: at for at, edit in reversed(list(enumerate(menu.edits)))}
    found: dict[float, Point] = {}
    for bits in np.geomspace(low * (1 + 1e-9), max(high, low), BUDGETS if len(menu.units) <= MANY else FEW):
        try:
            (one,) = plan(menu, [f"{bits:.9f} bits/weight"])
        except BudgetError:  # rounded to below the cheapest plan
            continue
        choice = tuple(place[one.edits[unit.name]] for unit in menu.units)
        spends = one.spent
        point = Point(spends["bits_per_weight"], spends.get("bytes"), one.damage, one.error, one.bound, choice)
        found[point.bits] = point
    return list(found.values())


def ours(run: Run) -> Point | None:
    """The plan of this run as a point among the others; None where nobody has said what it spends and damages."""
    from secateur.parts.edits import text

    bits = run.spent.get("bits_per_weight")
    if not (run.planned and bits):
        return None
    choice: tuple[int, ...] = ()
    if run.menu is not None:
        place = {text(edit): at for at, edit in reversed(list(enumerate(run.menu.edits)))}
        by_name = {row.name: place.get(row.edit) for row in run.rows}
        places = [by_name.get(unit.name) for unit in run.menu.units]
        choice = tuple(at for at in places if at is not None)
        choice = choice if len(choice) == len(places) else ()
    return Point(bits, run.spent.get("bytes"), *run.planned, run.planned[0], choice)


def in_order(points: Sequence[Point], mine: Point | None) -> list[Point]:
    """The plans that the page can show, from lean to rich; the run's own stands among them."""
    everyone = [*points, *([mine] if mine else [])]
    return sorted((point for point in everyone if point.choice), key=lambda point: (point.bits, point is mine))


def data(menu: Menu | None, points: Sequence[Point], mine: Point | None) -> dict[str, Any]:
    """What the page's script knows: units, edits, what each costs and damages, and the plans from lean to rich.

    Damages are the menu's own; the script scales them so that a plan's units add up to what is expected of the plan.
    """
    import numpy as np

    from secateur.parts.edits import text

    plans = in_order(points, mine)
    if menu is None or not plans or "bytes" not in menu.cost:
        return {}
    offered = np.isfinite(menu.damage) & np.isfinite(menu.cost["bytes"])
    used = {e for point in plans for e in point.choice}
    whole = len(menu.units) * len(menu.edits) <= WHOLE
    shown = [e for e in range(len(menu.edits)) if e in used or (whole and offered[:, e].any())]
    at = {e: i for i, e in enumerate(shown)}
    kept = [e for e, edit in enumerate(menu.edits) if text(edit) == "keep()"]
    return {
        "units": [
            [unit.name, unit.kind, unit.block, max(unit.size, 1), [[m.key, m.rows, m.cols] for m in unit.matrices[:64]]]
            for unit in menu.units
        ],
        "edits": [text(menu.edits[e]) for e in shown],
        "bytes": _numbers(menu.cost["bytes"][:, shown], offered[:, shown]),
        "payload": _numbers(_payload(menu)[:, shown], offered[:, shown]),
        "damage": _numbers(menu.damage[:, shown], offered[:, shown]),
        "before": _numbers(menu.cost["bytes"][:, kept[:1]], offered[:, kept[:1]]) if kept else [],
        "fixed": menu.fixed.get("bytes", 0.0),
        "plans": [_plan(point, at) for point in plans],
        "ours": next((i for i, point in enumerate(plans) if point is mine), None),
    }


def _payload(menu: Menu) -> np.ndarray:
    """What bits are counted from; what does not count (`--over linear`) has no payload, but its bytes."""
    import numpy as np

    payload = menu.cost.get("payload", menu.cost["bytes"])
    return np.where(payload > 0, payload, menu.cost["bytes"])


def _plan(point: Point, at: Mapping[int, int]) -> dict[str, Any]:
    told = {"bits": point.bits, "bytes": point.bytes, "damage": point.damage, "error": point.error}
    return told | {"floor": point.floor, "choice": [at[e] for e in point.choice]}


def _numbers(values: np.ndarray, offered: np.ndarray) -> list[list[float | int | None]]:
    """Rows of numbers as short as they can be; None where an edit is not offered."""

    def short(value: float) -> float | int:
        return int(value) if float(value).is_integer() else float(f"{value:.5g}")

    return [
        [short(value) if can and math.isfinite(value) else None for value, can in zip(row, some, strict=True)]
        for row, some in zip(values.tolist(), offered.tolist(), strict=True)
    ]
