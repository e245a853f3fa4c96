"""What a survey keeps of finished units in its work folder: factors, damages, and the matrices of probes.

A broken run goes on behind them; of a whole menu only the factors stay, for applying a plan needs them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from secateur.cut.case import Case
from secateur.export import Parts
from secateur.export._write import write_text
from secateur.model.factors import Factors
from secateur.parts.damage import Row
from secateur.types import Matrix, Unit


def store_factors(work: Path, at: int, found: Mapping[str, Factors]) -> None:
    """Keep the factors of the unit at this place."""
    tensors = {f"{side}/{key}": getattr(f, side).cpu().contiguous() for key, f in found.items() for side in "ag"}
    Parts(work / "factors").save(str(at), tensors)


def stored_factors(work: Path, at: int, unit: Unit) -> dict[str, Factors] | None:
    """The factors that a survey left for the unit at this place, or None."""
    parts = Parts(work / "factors")
    if not parts.has(str(at)):
        return None
    held = parts.load(str(at))
    return {m.key: Factors(held[f"a/{m.key}"], held[f"g/{m.key}"]) for m in unit.matrices}


def factors_of(case: Case, work: Path) -> Callable[[Matrix], Factors | None]:
    """What the survey knows of any one matrix."""
    owners = {m.key: (at, unit) for at, unit in enumerate(case.units) for m in unit.matrices}

    def factors(matrix: Matrix) -> Factors | None:
        if matrix.key not in owners:
            return None
        return (stored_factors(work, *owners[matrix.key]) or {}).get(matrix.key)

    return factors


def store_row(work: Path, at: int, row: Row) -> None:
    """Keep the damages and the probes of the unit at this place."""
    probes = {f"{level}/{key}": w.half().cpu() for level, cut in row.probes.items() for key, w in cut.items()}
    Parts(work / "probes").save(str(at), probes)
    told = {
        "damage": row.damage.tolist(),
        "error": row.error.tolist(),
        "expected": {str(level): value for level, value in row.expected.items()},
    }
    write_text(work / "rows" / f"{at}.json", json.dumps(told))


def stored_row(work: Path, at: int) -> Row:
    """Those damages; of the probes what was expected of them."""
    told = json.loads((work / "rows" / f"{at}.json").read_text())
    expected = {int(level): value for level, value in told["expected"].items()}
    return Row(np.array(told["damage"]), np.array(told["error"]), {}, expected)


def tidy(work: Path) -> None:
    """When the menu is whole, only the factors are needed."""
    for file in sorted(work.rglob("*"), reverse=True):
        if file.is_dir():
            if not any(file.iterdir()):
                file.rmdir()
        elif file.parent.name != "factors" and file.name != "job.json":
            file.unlink()
