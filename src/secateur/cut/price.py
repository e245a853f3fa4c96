"""The price of a plan before it is carried out: what the file will hold, to the byte, headers included."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.cut.case import Case, also
from secateur.export import Format
from secateur.export._write import layout_bytes
from secateur.model.matrix import place
from secateur.parts.edits.keep import Keep
from secateur.types import Budget, BudgetError, Edit, Unit

#: what a cut of an image model spends; of a language model there is more, for every token that it keeps
RESOURCES = ("bytes", "bits_per_weight", "flops", "seconds")
TOKENS = (*RESOURCES, "kv")
#: shapes of a language model that have fewer FLOPs, and, but for the first, a smaller cache
FEWER_FLOPS = ("channels", "heads", "drop")


def check(budget: Budget, pictures: bool = False) -> None:
    """BudgetError if a cap is on something that no cut of such a model changes."""
    known = RESOURCES if pictures else TOKENS
    for resource in (*budget.caps, *budget.share):
        if resource not in known:
            raise BudgetError(f"no menu prices `{resource}` yet", f"a budget may cap {' and '.join(known)}")


def needed(budget: Budget, kinds: tuple[str, ...], form: Format, pictures: bool = False) -> tuple[str, ...]:
    """The kinds of edits that somebody asks for, and those without which the budget could not be kept to: where FLOPs
    or seconds are capped channels, and of language models heads, layers and low ranks, as the format holds them; where
    the cache is capped heads and layers, and low ranks if the format's reader caches what they make of a token."""
    caps = (*budget.caps, *budget.share)
    if not pictures and any(kind in (*FEWER_FLOPS, "rank") for kind in kinds):  # somebody has said which
        return kinds
    if pictures:
        more: tuple[str, ...] = ("channels",) if "flops" in caps or "seconds" in caps else ()
    elif "flops" in caps or ("seconds" in caps and getattr(form, "shapes", "")):
        more = ("rank", *FEWER_FLOPS) if getattr(form, "forms", False) else FEWER_FLOPS
    else:
        fewer = FEWER_FLOPS[1:] if "kv" in caps else ()
        more = ("rank", *fewer) if fewer and getattr(form, "latents", False) else fewer
    return tuple(dict.fromkeys((*kinds, *more)))


def price(case: Case, unit: Unit, edit: Edit, over: str) -> dict[str, float]:
    """What one unit takes: bytes of the file, the payload that bits per weight are counted from, FLOPs, bytes of
    keys and values, and seconds."""
    layout = case.layout(unit, edit)
    all_ = {
        "bytes": sum(case.format.disk.tensor_bytes(name, one) for name, one in layout.items()),
        "payload": sum(layout_bytes(one) for one in layout.values()) if counted(unit, over) else 0,
        "flops": case.flops(unit, edit) if "flops" in case.resources else 0,
        "kv": case.kv(unit, edit) if "kv" in case.resources else 0,
        "seconds": case.clock.seconds(unit, edit) if case.clock else 0.0,
    }
    return {name: all_[name] for name in case.resources}


def fixed(case: Case, over: str) -> dict[str, float]:
    """What the rest of the file takes, whatever the plan."""
    disk = case.format.disk
    rest = disk.layout_rest(case.rest_layout)
    stored = sum(disk.tensor_bytes(name, one) for name, one in rest.items())
    payload = sum(layout_bytes(one) for one in rest.values()) if over == "all" else 0
    more = {}
    if "flops" in case.resources:
        own = {place(matrix).module for unit in case.units for matrix in unit.matrices}
        routers = {unit.side.router for unit in case.units if unit.side is not None and unit.side.router}
        more["flops"] = case.stream.elsewhere(own | routers)
    if "kv" in case.resources:
        more["kv"] = case.stream.kv - sum(case.kv(unit, Keep()) for unit in case.units)
    if case.clock:
        more["seconds"] = case.clock.rest
    return {"bytes": disk.base_bytes() + stored, "payload": payload, **more}


def weights(case: Case, over: str) -> int:
    """How many original parameters bits per weight are divided by."""
    cut = sum(
        unit.size + sum(case.checkpoint.tensors[name].size for name in (*unit.vectors, *also(unit)))
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
