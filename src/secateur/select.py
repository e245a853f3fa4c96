"""Which examples? A network looks at all of them, a method chooses, and the chosen are written as they came in."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.export._write import write_text
from secateur.model.stream import device_of
from secateur.parts.eyes import Seen
from secateur.parts.eyes.opening import open_eye
from secateur.parts.select import DEFAULT, TOWARDS, Chosen, Keep, find
from secateur.types import DataError, SecateurError

Tell = Callable[[str, int, int], None]
#: what lies beside the chosen examples and the report
SELECTION, SCORES = "selection.json", "scores.csv"


def select(
    model: str,
    data: str | Path,
    keep: str | int = "10%",
    *,
    target: str | Path | None = None,
    method: str | None = None,
    samples: int | None = None,
    seq_len: int | None = None,
    documents: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    again: str = "",
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Choose examples of a file: of a text, of a table with a column of text, or for an image model of an .npz.

    `keep` is a share ("10%"), a number (500), or tokens ("20000 tokens", "10% tokens"), and is never exceeded. `target`
    is a file with examples of the kind that is wanted. `method` names who chooses, knobs in brackets: `simcore` where
    there is a target, else `random`. `samples` lets only so many examples be looked at, spread evenly; of a document
    `seq_len` tokens are read. `documents` says what lies between two of a text file. With `out`, a folder gets the
    chosen examples in the format in which they came, `scores.csv`, `selection.json` and `report.html`.
    """
    begun, tell = time.time(), tell or (lambda *_: None)
    wanted, name = Keep.parse(str(keep)), method or (DEFAULT if target is None else TOWARDS)
    chooser = find(name)
    if target is not None and not getattr(chooser, "resembles", False):
        raise SecateurError(f"the method `{name}` looks at no target", "leave --target out, or take --method simcore")
    place = None if out is None else _place(Path(out).expanduser(), Path(data).expanduser())
    eye = open_eye(model, data, target, samples, seq_len, documents, device_of(device), tell)
    room = wanted.room(len(eye), eye.tokens() if wanted.unit == "tokens" else None, eye.pool.each)
    chosen = chooser(eye, room, torch.Generator().manual_seed(seed))
    at = chosen.at.sort().values
    assert len(at.unique()) == len(at) and room.used(at) <= room.most, f"{name} went over what it was given"
    if not len(at):
        raise DataError(f"{name} has found no example to keep", "ask for more, or give another target")
    seen = _seen(eye)
    told: dict[str, Any] = {"model": model, "data": str(data), "target": None if target is None else str(target)}
    told |= {"method": name, "knobs": _knobs(chooser), "seed": seed, "each": eye.pool.each, "taken": eye.pool.taken}
    told |= {"of": len(eye), "in_the_file": len(eye.pool), "keep": {"asked": wanted.asked, "unit": room.unit}}
    told["keep"]["most"], told["used"] = room.most, _used(seen, at)
    told |= {"scored": chosen.scored, "means": _means(seen, chosen, at), "charged": eye.charge.told()}
    if "tokens" in seen.known:
        told |= {"seq_len": eye.length, "longer": eye.longer}  # type: ignore[union-attr]  # an eye for texts
    told |= {"about": dict(chosen.about), "indices": seen.numbers[at].tolist(), "scores": chosen.score[at].tolist()}
    if place is not None:
        told |= _written(place, eye, seen, chosen, at, told, again, begun, tell)
    return told | {"seconds": time.time() - begun}


def _place(out: Path, data: Path) -> Path:
    """Where the chosen examples go; an error where that is the file they come from, or no folder."""
    if out.exists() and not out.is_dir():
        raise SecateurError(f"{out} is a file, and a folder is written", "give another place: -o out")
    if (out / data.name).exists() and data.exists() and (out / data.name).samefile(data):
        raise SecateurError(f"the chosen examples would be written over {data}", "give another place: -o out")
    return out / data.name


def _knobs(chooser: Any) -> dict[str, Any]:
    return {one.name: getattr(chooser, one.name) for one in fields(chooser)} if is_dataclass(chooser) else {}


def _seen(eye: Any) -> Seen:
    """What is known of every example: of a method that has looked at none of them, after a look for the map."""
    glanced: Tensor | None = eye.glanced if eye.seen is None else None
    seen = eye.see() if glanced is None else Seen(eye.numbers, glanced, {})
    tokens = eye.tokens()
    return seen if tokens is None else Seen(seen.numbers, seen.vectors, {**seen.known, "tokens": tokens})


def _used(seen: Seen, at: Tensor) -> dict[str, int]:
    tokens = seen.known.get("tokens")
    return {"examples": len(at)} | ({} if tokens is None else {"tokens": int(tokens[at].sum())})


def _means(seen: Seen, chosen: Chosen, at: Tensor) -> dict[str, dict[str, float]]:
    """Of every number that is known of the examples the mean over the kept ones and over all."""
    known = {**seen.known, **({chosen.scored: chosen.score} if chosen.shown else {})}
    return {
        name: {"kept": float(value[at].double().nanmean()), "all": float(value.double().nanmean())}
        for name, value in known.items()
    }


def _written(
    place: Path, eye: Any, seen: Seen, chosen: Chosen, at: Tensor, told: Mapping[str, Any], again: str, begun: float,
    tell: Tell,
) -> dict[str, Any]:  # fmt: skip
    """Write the chosen examples, a line for each there was, the report, and in the end what was done."""
    from secateur.report.chosen import draw, mapped

    tell("writing", 0, 2)
    eye.pool.write(seen.numbers[at].tolist(), place)
    tell("writing", 1, 2)
    kept = torch.zeros(len(seen), dtype=torch.bool)
    kept[at] = True
    found = mapped(eye, seen, chosen, kept, told["each"])
    write_text(place.parent / SCORES, _table(seen, chosen, kept, found.groups))
    more = {"clusters": found.told(), "file": str(place), "scores_of_all": str(place.parent / SCORES)}
    more |= {"report": str(place.parent / "report.html"), "again": again}
    write_text(Path(more["report"]), draw({**told, **more}, found))
    whole = {**told, **more, "seconds": round(time.time() - begun, 1)}
    write_text(place.parent / SELECTION, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    tell("writing", 2, 2)
    return more


def _table(seen: Seen, chosen: Chosen, kept: Tensor, groups: Tensor) -> str:
    """A line for each example: its number in the file, whether it was kept, its cluster, and what is known of it."""
    columns = {"index": seen.numbers, "kept": kept.long(), "cluster": groups, "score": chosen.score, **seen.known}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    for row in zip(*(one.tolist() for one in columns.values()), strict=True):
        lines.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in row)
    return text.getvalue()
