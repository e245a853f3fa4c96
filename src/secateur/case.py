"""A model, a text and a format, opened together: what surveying and applying both start from."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur import export
from secateur.export import Format
from secateur.export._write import write_text
from secateur.model.checkpoint import Checkpoint, open_checkpoint
from secateur.model.stream import Stream
from secateur.model.text import windows
from secateur.parts import edits as edits_
from secateur.types import Edit, PlanError, SecateurError, Unit

#: `tell(stage, done, total)`: how far things are
Tell = Callable[[str, int, int], None]
log = logging.getLogger("secateur")


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Case:
    """Everything about one job that does not depend on the budget. Token windows are `windows x length`."""

    checkpoint: Checkpoint
    stream: Stream
    format: Format
    dtype: str  # of the model's weights, as the config names it
    calib: Tensor  # to gather statistics on
    check: Tensor  # to correct the prediction on; empty where there is little text
    held: Tensor  # to report on
    device: torch.device

    @property
    def units(self) -> tuple[Unit, ...]:
        return self.stream.anatomy.units


def open_case(
    model: str, data: str, format: str, samples: int, seq_len: int | None, seed: int, device: str | None
) -> Case:
    """Open a model and cut a text into windows: four fifths to calibrate, the rest to correct the prediction, and as
    many again held back to report on."""
    at = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    checkpoint = open_checkpoint(model)
    stream = Stream(checkpoint, at)
    config = checkpoint.config
    context = config.get("max_position_embeddings") or config.get("n_positions")
    more = max(samples // 4, 8)
    calib, held = windows(
        data, checkpoint.folder, samples + more, seq_len, seed, context=context, vocabulary=config.get("vocab_size")
    )
    every = max(2, len(calib) // max(1, min(more, len(calib) // 5)))
    mine = torch.arange(len(calib)) % every == every - 1
    dtype = next(e.dtype for e in checkpoint.tensors.values() if e.dtype in _DTYPES)
    return Case(
        checkpoint,
        stream,
        export.find(format, config | {"dtype": _DTYPES[dtype]}, stream.anatomy),
        _DTYPES[dtype],
        calib[~mine],
        calib[mine],
        held,
        at,
    )


_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def offers(
    case: Case, over: str, keep: Sequence[str], pin: Mapping[str, str]
) -> tuple[tuple[Edit, ...], list[list[bool]], list[dict[str, str]]]:
    """The edits of the menu, which unit can have which, and the units that can have none but `keep`, with reasons."""
    if over not in ("all", "linear"):
        raise SecateurError(f"`--over {over}` is not known", "say `all` or `linear`")
    pinned = {pattern: edits_.parse(words) for pattern, words in pin.items()}
    menu = tuple(dict.fromkeys([*case.format.edits(), *pinned.values()]))
    kept = edits_.parse("keep()")
    used: set[str] = set()
    can, skipped = [], []
    for unit in case.units:
        fixed = next((p for p in pinned if _matches(p, unit)), None)
        left = next((p for p in keep if _matches(p, unit)), None)
        used |= {p for p in (fixed, left) if p}
        refusals = [case.format.refuses(unit, edit) for edit in menu]
        if fixed is not None:
            why = refusals[menu.index(pinned[fixed])]
            if why:
                raise PlanError(f"`{unit.name}` cannot be {edits_.text(pinned[fixed])}: {why}", "pin another edit")
            can.append([edit == pinned[fixed] for edit in menu])
            continue
        if left is None and not (over == "linear" and unit.block is None):
            can.append([why is None for why in refusals])
        else:
            can.append([edit == kept for edit in menu])
        if sum(can[-1]) <= 1:
            reason = (
                f"kept by --keep {left}"
                if left
                else "not a linear layer of a block (--over linear)"
                if over == "linear" and unit.block is None
                else next(why for why in refusals if why)
            )
            skipped.append({"unit": unit.name, "reason": reason})
    for pattern in {*pinned, *keep} - used:
        raise PlanError(
            f"`{pattern}` matches no unit", f"units are named like `{case.units[len(case.units) // 2].name}`"
        )
    return menu, can, skipped + [{"unit": name, "reason": why} for name, why in case.stream.anatomy.skipped]


def _matches(pattern: str, unit: Unit) -> bool:
    """A pattern names a unit or one of its members, whole, with wildcards, or as a part between dots."""
    names = (unit.name, *unit.members)
    return any(fnmatchcase(n, pattern) or fnmatchcase(n, f"*{pattern}*") for n in names)


def work_folder(out: Path, resume: bool, key: Mapping[str, Any]) -> Path:
    """Where unfinished work lies. What is there from another job (its key differs), or unwanted, goes first."""
    work, said = out / ".work", json.dumps(key, sort_keys=True, default=str)
    try:
        job = work / "job.json"
        if work.exists() and not (resume and job.exists() and job.read_text() == said):
            shutil.rmtree(work)
        if not job.exists():
            work.mkdir(parents=True)
            write_text(job, said)
    except OSError as error:
        raise SecateurError(f"cannot write to {out}: {error.strerror}", "give another folder with -o") from error
    return work


def about(case: Case, **more: Any) -> dict[str, Any]:
    """What a menu or a plan must remember of the job it belongs to."""
    return {
        "model": str(case.checkpoint.folder),
        "fingerprint": case.checkpoint.fingerprint,
        "format": case.format.name,
        "dtype": case.dtype,
        **more,
    }
