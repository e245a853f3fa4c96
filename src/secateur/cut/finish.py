"""Finish: what is cut becomes a file that its runtime has read, and what is known of it is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from secateur.cut.case import Case, Samples, Tell, folds
from secateur.export import Finished, Parts, companions, find, names
from secateur.export._renumber import blocks_left, config_of_blocks, renumbered, renumbered_units
from secateur.measure.compare import Comparison
from secateur.model.load import SMALLER, config_of
from secateur.model.whole import Whole
from secateur.parts.edits import text
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.trunks import ROW
from secateur.parts.left import told
from secateur.types import Edit, ExportError, Plan

#: bytes of float32 weights up to which the runtime loads an export whole; above, a few blocks at a time
WHOLE = 256 * 2**20


def finish(
    case: Case,
    edits: Mapping[str, Edit],
    quoted: float,
    work: Path,
    out: Path,
    seen: tuple[Samples, Tensor],
    tell: Tell,
) -> dict[str, Any]:
    """Stitch the parts into the model, add what belongs beside it, let the runtime read it, and put it in its place."""
    parts, made, disk = Parts(work / "parts"), work / "export", case.format.disk
    rest = {name: case.checkpoint.read(name) for name in case.rest}
    if Parts(work).has("renewed"):
        rest |= {name: value.to(rest[name].dtype) for name, value in Parts(work).load("renewed").items()}
    parts.save("rest", disk.encode_rest(rest))
    left = {unit.name: case.left(unit, edits[unit.name]) for unit in case.units}
    units, inner = tuple(unit for unit, _ in left.values()), {name: edit for name, (_, edit) in left.items()}
    tell("writing", 0, 2)
    shutil.rmtree(made, ignore_errors=True)
    pieces = (*map(str, range(len(case.units))), "rest")
    kept = blocks_left(case.units, units) if case.whole_blocks else None
    called, config, before = {}, dict(case.checkpoint.config), case.units
    smaller = [pair for pair in zip(before, units, strict=True) if kept is None or pair[0].block in (None, *kept)]
    gone = told(*zip(*smaller, strict=True))
    if kept is not None:
        called = {name: renumbered(name, kept) for name in parts.layouts(pieces)}
        units, config = renumbered_units(units, kept), config_of_blocks(config, kept, config_of(case.checkpoint))  # type: ignore[arg-type]  # a network of blocks comes from a checkpoint
    files = disk.write(Finished(parts, pieces, units, inner, before, called), made)
    companions(case.checkpoint.folder, made)
    if gone:
        config[SMALLER] = gone
    case.format.finish(made, config, Plan(inner, {}, 0.0, 0.0, 0.0), units)
    written = disk.priced(files)
    if written != quoted:
        raise ExportError(f"the file was priced at {quoted} bytes and came to {written}", "please report this")
    tell("writing", 1, 2)
    large = 4 * sum(entry.size for entry in case.checkpoint.tensors.values()) > WHOLE
    verified = case.format.verify(made, None if large else seen[1], case.stream.inputs(seen[0]))
    put_in_place(made, out, files)
    tell("writing", 2, 2)
    return {
        "format": case.format.name,
        "files": [file.name for file in files],
        "bytes_on_disk": sum((out / file.name).stat().st_size for file in files),
        "bytes_priced": written,
        **verified,
    }


def put_in_place(made: Path, out: Path, files: Sequence[Path]) -> None:
    """Move a finished model over the one that may be there, of any format. What stands beside comes first, then the
    files themselves, then config.json: a folder that has it, or a file that needs none, is whole."""
    (out / "config.json").unlink(missing_ok=True)
    for old in {old for name in names() for old in find(name).disk.files(out)}:
        old.unlink()
    for file in sorted(made.iterdir(), key=lambda file: (file.name == "config.json", file in files)):
        os.replace(file, out / file.name)
    made.rmdir()


def summary(
    case: Case,
    plan: Plan,
    edits: Mapping[str, Edit],
    compared: Comparison,
    bad_rows: Sequence[Mapping[str, Any]],
    exported: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON object of the contract; for image models with the accuracy beside the loss."""
    pictures = isinstance(case.stream, Whole)
    touched = sum(m.size for u in case.units if not isinstance(edits[u.name], Keep) for m in u.matrices)
    everything = sum(entry.size for entry in case.checkpoint.tensors.values())
    reasons = {one["unit"]: one["reason"] for one in plan.about.get("skipped", ())}
    kept = [row for row, units in case.rows.items() if isinstance(edits[units[0].name], Keep)]
    skipped = [{"unit": name, "reason": reasons.get(name, "the plan keeps it")} for name in kept]
    skipped += [{"unit": name, "reason": why} for name, why in case.skipped]
    return {
        "model": str(case.checkpoint.folder),
        "budget": {"asked": plan.budget, **dict(plan.about.get("caps", {}))},
        "loss_before": compared.reference_loss,
        "loss_after": compared.loss,
        **({"accuracy_before": compared.reference_accuracy, "accuracy_after": compared.accuracy} if pictures else {}),
        "damage_predicted": plan.damage,
        "damage_error": plan.error,
        "damage_measured": compared.rise,
        "damage_measured_error": compared.rise_error,
        "damage_floor": plan.bound,
        "kl_predicted": plan.about.get("kl_predicted"),
        "kl": compared.kl,
        "kl_error": compared.kl_error,
        "agreement": compared.agreement,
        "coverage": touched / everything,
        "skipped": skipped,
        "bad_rows": list(bad_rows),
        "export": dict(exported),
        **({"folded": n} if (n := folds(case)) else {}),
        "edits": {row: text(edits[units[0].name]) for row, units in case.rows.items()}
        | {row: text(edit) for row, edit in plan.edits.items() if row == ROW},
    }
