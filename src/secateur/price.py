"""The price of a plan before it is carried out: what the file will hold, to the byte, headers included."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.case import Case
from secateur.export._write import layout_bytes
from secateur.types import Budget, BudgetError, Edit, Unit

#: what a cut of the weights spends
RESOURCES = ("bytes", "bits_per_weight")


def check(budget: Budget) -> None:
    """BudgetError if a cap is on something that a cut of the weights does not change."""
    for resource in (*budget.caps, *budget.share):
        if resource not in RESOURCES:
            raise BudgetError(f"no menu prices `{resource}` yet", f"a budget may cap {' and '.join(RESOURCES)}")


def price(case: Case, unit: Unit, edit: Edit, over: str) -> dict[str, int]:
    """What one unit takes: bytes of the file, and the payload that bits per weight are counted from."""
    layout = case.format.layout(unit, edit, case.dtype_of(unit, edit))
    return {
        "bytes": sum(case.format.disk.tensor_bytes(name, one) for name, one in layout.items()),
        "payload": sum(layout_bytes(one) for one in layout.values()) if counted(unit, over) else 0,
    }


def fixed(case: Case, over: str) -> dict[str, int]:
    """What the rest of the file takes, whatever the plan."""
    disk, entries = case.format.disk, {name: case.checkpoint.tensors[name] for name in case.rest}
    rest = disk.layout_rest({name: (entry.dtype, entry.shape) for name, entry in entries.items()})
    stored = sum(disk.tensor_bytes(name, one) for name, one in rest.items())
    payload = sum(layout_bytes(one) for one in rest.values()) if over == "all" else 0
    return {"bytes": disk.base_bytes() + stored, "payload": payload}


def weights(case: Case, over: str) -> int:
    """How many original parameters bits per weight are divided by."""
    cut = sum(unit.size for unit in case.units if counted(unit, over))
    return cut + (sum(case.checkpoint.tensors[name].size for name in case.rest) if over == "all" else 0)


def counted(unit: Unit, over: str) -> bool:
    """Whether a unit counts: all do, or only what lies inside the blocks (`--over linear`)."""
    return over == "all" or unit.block is not None


def spent(case: Case, edits: Mapping[str, Edit], over: str) -> dict[str, float]:
    """What a plan spends, for the whole file."""
    totals = fixed(case, over)
    for unit in case.units:
        totals = {name: total + price(case, unit, edits[unit.name], over)[name] for name, total in totals.items()}
    return {"bytes": totals["bytes"], "bits_per_weight": 8 * totals["payload"] / weights(case, over)}
