"""The main job, in three steps with files in between, or in one: survey, plan, apply.

cut("model", "text.txt", "4.25 bits/weight", out="out")
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.cut.applying import apply, carry_out, check_place, record, sides_of
from secateur.cut.case import Tell, silent
from secateur.cut.latency import timed
from secateur.cut.opening import open_case, usual_format
from secateur.cut.planning import planned
from secateur.cut.price import check, needed
from secateur.cut.surveying import survey, take_up
from secateur.cut.trials import at_budget
from secateur.export import find
from secateur.parts import allocate as allocators
from secateur.parts import edits as edits_
from secateur.parts.menus import load_menu, save_plan
from secateur.parts.vision import is_vision
from secateur.types import Budget, Menu, Plan

if TYPE_CHECKING:
    from secateur.model.anatomy import Anatomy

__all__ = ["apply", "cut", "export", "inspect", "plan", "survey"]


def plan(menu: Menu | str | Path, budgets: Sequence[str], allocate: str = "lagrange") -> list[Plan]:
    """The best plan on the menu for each budget."""
    menu = menu if isinstance(menu, Menu) else load_menu(Path(menu))
    choose = allocators.find(allocate)
    return [planned(menu, Budget.parse(budget), choose) for budget in budgets]


def cut(
    model: str,
    data: str,
    budget: str,
    *,
    out: str | Path,
    format: str | None = None,
    over: str = "all",
    keep: tuple[str, ...] = (),
    pin: Mapping[str, str] | None = None,
    damage: str = "kronecker",
    edits: str = "bits",
    allocate: str = "lagrange",
    round: str = "two-sided",
    samples: int | None = None,
    seq_len: int | None = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Survey, plan and apply; the JSON object of the contract. The menu stays in `out/menu`, for other budgets."""
    begun, out, tell = time.time(), Path(out), tell or silent
    # what is not known is said before the long part
    asked = Budget.parse(budget)
    check(asked, is_vision(model))
    allocators.find(allocate)
    sides_of(round)
    format = format or usual_format(model)
    kinds = needed(asked, edits_.asked(edits), find(format), is_vision(model))
    clocked = "seconds" in (*asked.caps, *asked.share)  # on the processor
    device = "cpu" if clocked and device is None else device
    case = open_case(model, data, format, samples, seq_len, seed, device, kinds)
    check_place(case, out)
    case = timed(case) if clocked else case
    how = {"over": over, "damage": damage, "samples": samples, "seq_len": seq_len, "seed": seed, "data": str(data)}
    menu, taken_up = take_up(case, how, keep, dict(pin or {}), out / "menu", resume, tell)
    menu = at_budget(case, menu, budget, allocate, out / "menu", tell) if clocked else menu
    (chosen,) = plan(menu, [budget], allocate)
    save_plan(chosen, out / "plan.yaml")
    result = carry_out(case, chosen, out, out / "menu", round, seed, resume, tell)
    return record(out, result | {"resumed": taken_up or result["resumed"]}, begun)


def inspect(model: str) -> dict[str, Any]:
    """What is in a model, from headers only: units, bytes, what can be cut, and what cannot and why.

    An image model is small, and is opened whole; what it computes for one example is said as well.
    """
    from secateur.model.anatomy import anatomy, skeleton
    from secateur.model.checkpoint import open_checkpoint
    from secateur.parts.gguf.read import is_gguf, open_gguf

    if is_vision(model):
        return _inspect_pictures(model)
    checkpoint: Any = open_gguf(model) if is_gguf(model) else open_checkpoint(model, quantized=True)
    return _inspected(checkpoint, anatomy(checkpoint, skeleton(checkpoint)))


def _inspect_pictures(model: str) -> dict[str, Any]:
    from secateur.model.flops import flops
    from secateur.model.whole import Whole
    from secateur.parts.vision import open_vision

    seen = open_vision(model)
    found = Whole(seen.held, seen.network, seen.prepare, seen.classes(), "cpu").anatomy
    counted = flops(seen.network, seen.example(1))
    told = _inspected(seen.held, found)
    for unit in told["units"]:
        unit["flops"] = counted.get(unit["unit"], 0)
    return told | {
        "bytes": seen.stored,
        "weights": seen.weights,
        "bits_per_weight": seen.bits_per_weight,
        "flops": sum(counted.values()),
        "preprocessing": seen.prepare.told(),
    }


def _inspected(checkpoint: Any, found: Anatomy) -> dict[str, Any]:
    units = [
        {
            "unit": unit.name,
            "kind": unit.kind,
            "block": unit.block,
            "weights": unit.size,
            "bytes": sum(checkpoint.tensors[name].bytes for name in {m.tensor for m in unit.matrices}),
            "matrices": [{"name": m.key, "rows": m.rows, "cols": m.cols} for m in unit.matrices],
        }
        for unit in found.units
    ]
    weights = sum(entry.size for entry in checkpoint.tensors.values())
    return {
        "model": str(checkpoint.folder),
        "family": found.family,
        "architecture": (checkpoint.config.get("architectures") or [""])[0],
        "fingerprint": checkpoint.fingerprint,
        "bytes": checkpoint.bytes,
        "weights": weights,
        "bits_per_weight": 8 * checkpoint.bytes / weights,
        "blocks": len(found.blocks),
        "tied": found.tied,
        "units": units,
        "rest": {"tensors": len(found.rest), "bytes": sum(checkpoint.tensors[name].bytes for name in found.rest)},
        "skipped": [{"unit": name, "reason": why} for name, why in found.skipped],
        "coverage": sum(unit["weights"] for unit in units) / weights,
    }


def export(model: str, format: str, out: str | Path, tell: Tell | None = None) -> dict[str, Any]:
    """Convert a model to another format."""
    from secateur.export import export_folder

    return export_folder(model, format, out)
