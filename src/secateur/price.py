"""The price of a plan before it is carried out: what the file will hold, to the byte, headers included."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.case import Case
from secateur.export._write import layout_bytes
from secateur.types import Budget, BudgetError, Edit, Unit

#: what a cut of the weights spends
RESOURCES = ("bytes", "bits_per_weight")
#: what fewer channels spend less of as well
FEWER = (*RESOURCES, "flops")


def check(budget: Budget, pictures: bool = False) -> None:
    """BudgetError if a cap is on something that a cut of the weights (of an image model: or of its channels) does not
    change."""
    known = FEWER if pictures else RESOURCES
    for resource in (*budget.caps, *budget.share):
        if resource not in known:
            raise BudgetError(f"no menu prices `{resource}` yet", f"a budget may cap {' and '.join(known)}")


def needed(budget: Budget, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of edits that somebody asks for, and those without which the budget could not be kept to."""
    flops = "flops" in budget.caps or "flops" in budget.share
    return (*kinds, "channels") if flops and "channels" not in kinds else kinds


def price(case: Case, unit: Unit, edit: Edit, over: str) -> dict[str, int]:
    """What one unit takes: bytes of the file, and the payload that bits per weight are counted from."""
    layout = case.layout(unit, edit)
    return {
        "bytes": sum(case.format.disk.tensor_bytes(name, one) for name, one in layout.items()),
        "payload": sum(layout_bytes(one) for one in layout.values()) if counted(unit, over) else 0,
        **({"flops": case.flops(unit, edit)} if case.counts_flops else {}),
    }


def fixed(case: Case, over: str) -> dict[str, int]:
    """What the rest of the file takes, whatever the plan."""
    disk, entries = case.format.disk, {name: case.checkpoint.tensors[name] for name in case.rest}
    rest = disk.layout_rest({name: (entry.dtype, entry.shape) for name, entry in entries.items()})
    stored = sum(disk.tensor_bytes(name, one) for name, one in rest.items())
    payload = sum(layout_bytes(one) for one in rest.values()) if over == "all" else 0
    flops = {}
    if case.counts_flops:
        cut = {matrix.tap for unit in case.units for matrix in unit.matrices}
        flops = {"flops": sum(count for path, count in case.stream.flops.items() if path not in cut)}
    return {"bytes": disk.base_bytes() + stored, "payload": payload, **flops}


def weights(case: Case, over: str) -> int:
    """How many original parameters bits per weight are divided by."""
    cut = sum(
        unit.size + sum(case.checkpoint.tensors[name].size for name in unit.vectors)
        for unit in case.units
        if counted(unit, over)
    )
    return cut + (sum(case.checkpoint.tensors[name].size for name in case.rest) if over == "all" else 0)


def counted(unit: Unit, over: str) -> bool:
    """Whether a unit counts: all do, or only what lies inside the blocks (`--over linear`)."""
    return over == "all" or unit.block is not None


def spent(case: Case, edits: Mapping[str, Edit], over: str) -> dict[str, float]:
    """What a plan spends, for the whole file."""
    totals = fixed(case, over)
    for unit in case.units:
        totals = {name: total + price(case, unit, edits[unit.name], over)[name] for name, total in totals.items()}
    bits = 8 * totals.pop("payload") / weights(case, over)
    return {**totals, "bits_per_weight": bits}
