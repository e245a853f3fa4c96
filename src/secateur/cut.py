"""The main job, in three steps with files in between, or in one: survey, plan, apply.

    cut("model", "text.txt", "4.25 bits/weight", out="out")
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from secateur.apply import apply
from secateur.case import Tell
from secateur.parts import allocate as allocators
from secateur.parts.menus import load_menu, save_plan
from secateur.survey import survey
from secateur.types import Budget, Menu, Plan

__all__ = ["apply", "cut", "export", "inspect", "plan", "survey"]


def plan(menu: Menu | str | Path, budgets: Sequence[str], allocate: str = "lagrange") -> list[Plan]:
    """The best plan on the menu for each budget."""
    menu = menu if isinstance(menu, Menu) else load_menu(Path(menu))
    choose = allocators.find(allocate)
    return [_corrected(menu, choose(menu, Budget.parse(budget))) for budget in budgets]


def _corrected(menu: Menu, chosen: Plan) -> Plan:
    """The plan with its damage as the survey's probes say it will be measured: exp(shift) * sum^power.

    That grows with the sum, so the plan with the least sum is the plan with the least damage, and the floor stays one.
    """
    how = menu.about.get("correction", {})
    shift, power = how.get("shift", 0.0), how.get("power", 1.0)

    def measured(x: float) -> float:
        return math.exp(shift) * x**power if x > 0 else 0.0

    damage = measured(chosen.damage)
    slope = power * damage / chosen.damage if chosen.damage > 0 else 0.0
    about = {**menu.about, **chosen.about}
    return replace(chosen, damage=damage, error=slope * chosen.error, bound=measured(chosen.bound), about=about)


def cut(
    model: str,
    data: str,
    budget: str,
    *,
    out: str | Path,
    format: str = "compressed-tensors",
    over: str = "all",
    keep: tuple[str, ...] = (),
    pin: Mapping[str, str] | None = None,
    damage: str = "kronecker",
    allocate: str = "lagrange",
    round: str = "two-sided",
    samples: int = 128,
    seq_len: int | None = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = True,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Survey, plan and apply; the JSON object of the contract. The menu stays in `out/menu`: another budget is quick."""
    begun, out = time.time(), Path(out)
    Budget.parse(budget)  # a budget that cannot be read is said before the long part
    common = {"samples": samples, "seq_len": seq_len, "seed": seed, "device": device, "resume": resume, "tell": tell}
    menu = survey(model, data, out=out / "menu", format=format, over=over, keep=keep, pin=pin, damage=damage, **common)
    (chosen,) = plan(menu, [budget], allocate)
    save_plan(chosen, out / "plan.yaml")
    result = apply(model, chosen, data=data, out=out, menu=out / "menu", round=round, **common)
    return result | {"seconds": time.time() - begun}


def inspect(model: str) -> dict[str, Any]:
    """What is in a model, from headers only: units, bytes, what can be cut, and what cannot and why."""
    from secateur.model.anatomy import anatomy, skeleton
    from secateur.model.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(model, quantized=True)
    found = anatomy(checkpoint, skeleton(checkpoint))
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
