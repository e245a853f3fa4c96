"""Versus: what a bench measures on: one scorer for ours and others', rows that are kept, and a rival at a budget."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from secateur.bench.rivals import Rival, RivalError, run
from secateur.maths.bootstrap import bootstrap
from secateur.types import SecateurError

#: where a finished row lies, so that the same call takes it up
ROW = "bench-row.json"
#: where all rows lie
RESULT = "bench.json"
#: caps that a rival can be held to; FLOPs where it cuts image models
SIZES = ("bytes", "bits_per_weight", "flops")


@dataclass
class Entry:
    """One row, and what it is made of: KL and rise of the loss of every window."""

    row: dict[str, Any]
    kls: list[float] = field(default_factory=list)
    rises: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kls:
            for name, each in (("kl", self.kls), ("rise", self.rises)):
                self.row |= {name: math.fsum(each) / len(each), f"{name}_interval": list(bootstrap(each))}


def empty_row(contestant: str, budget: str) -> dict[str, Any]:
    """A row of which nothing is known yet. `*_more` is against the first contestant at the same budget."""
    words = ("allocate", "round", "damage", "tool", "setting", "version")
    figures = (
        "bytes",
        "bits_per_weight",
        "flops",
        "kv",
        "predicted",
        "kl",
        "kl_interval",
        "rise",
        "rise_interval",
        "agreement",
    )
    more = ("kl_more", "kl_more_interval", "rise_more", "rise_more_interval", "seconds", "note")
    known = {"contestant": contestant, "budget": budget, "asked": budget}
    return known | dict.fromkeys(words, "") | dict.fromkeys((*figures, *more))


@dataclass(frozen=True)
class Field:
    """Model, text and options of a bench, and the scorer that everybody is measured by."""

    model: str
    data: str
    text: str | None
    out: Path
    how: Mapping[str, Any]
    score: Any
    tell: Any
    limit: float
    over: str = "all"
    prompt: float = 0.0  # the share of every window that is read and not scored

    @property
    def on(self) -> Any:
        """What is measured on: the windows held back, or a text."""
        return self.case.held if self.text is None else self.text

    @cached_property
    def case(self) -> Any:
        """The case that ours are cut from: rivals calibrate and are measured on its windows."""
        from secateur.cut.opening import open_case

        return open_case(self.model, self.data, **self.how)

    def key(self) -> dict[str, Any]:
        """What a finished row depends on beside what was done."""
        from secateur.parts.vision import is_vision

        about = {key: self.how[key] for key in ("samples", "seq_len", "seed")}
        where = Path(self.text) if self.text is not None and not is_vision(self.model) else None
        about |= {"prompt": self.prompt} if self.prompt else {}
        return about | {"text": self.text, "size": where.stat().st_size if where and where.exists() else None}

    def once(self, folder: Path, done: Mapping[str, Any], do: Callable[[], Entry]) -> Entry:
        """The row in this folder where it is that of the very same job, else made now and kept."""
        from secateur.export._write import write_text

        mark = folder / ROW
        if mark.is_file():
            before = json.loads(mark.read_text(encoding="utf-8"))
            if before["of"] == json.loads(json.dumps(done)):
                return Entry(before["row"], before["kls"], before["rises"])
        made = do()
        write_text(mark, json.dumps({"of": done, "row": made.row, "kls": made.kls, "rises": made.rises}) + "\n")
        return made

    def measured(self, row: dict[str, Any], folder: Path) -> Entry:
        """A row with the figures of the files in a folder, whoever wrote them."""
        found, size, bits, note = self.score(str(folder), self.on)
        rises = [now - was for now, was in zip(found.losses, found.reference, strict=True)]
        row |= {"agreement": found.agreement, "note": row["note"] or note}
        row |= {name: value for name, value in (("bytes", size), ("bits_per_weight", bits)) if row[name] is None}
        return Entry(row, found.kls, rises)


def beside_ours(here: Field, folder: str) -> Entry:
    """A row for a folder that somebody else wrote; one that cannot be read, or compared, says why."""
    row = empty_row(folder, "")
    try:
        return here.measured(row, Path(folder))
    except SecateurError as why:
        return Entry(row | {"note": why.message})


def meet(here: Field, rival: Rival, settings: Sequence[str], caps: Mapping[str, float], budget: str) -> Entry:
    """The rival's row with its largest setting that keeps to the caps. Whatever goes wrong is a row that says so."""
    row = begun(rival, settings, budget)
    try:
        if here.over == "linear":  # embeddings and head stay as they are, theirs as ours
            settings = [rival.linear(setting) for setting in settings]
        if other := set(caps) - set(SIZES if rival.pictures else SIZES[:2]):
            raise RivalError(f"it is asked for sizes, and knows nothing of {', '.join(sorted(other))}")
        setting, told = largest(here, rival, settings, caps)
        row |= {"contestant": f"{rival.name} {setting}", "setting": setting}
        row |= {name: told.get(name) for name in (*SIZES, "seconds", "version")}
        row["budget"] = _same(rival, here.how["format"], told)
        folder = folder_of(here, rival, setting)
        done = {"rival": rival.name, "setting": setting, "version": told["version"], **_job(here), **here.key()}

        def measured() -> Entry:
            if not (folder / "packed").exists():  # dropped after a bench on another text
                _made(here, rival, setting, again=True)
            dense, file = folder / "dense", next((folder / "packed").iterdir())
            where = file if rival.pictures else dense if dense.exists() else folder / "packed"
            return _reading(lambda: here.measured(dict(row), where))

        found = here.once(folder, done, measured)
        return Entry(row | {key: found.row[key] for key in ("agreement", "note")}, found.kls, found.rises)
    except SecateurError as why:
        return failed(row, why, budget)


def begun(rival: Rival, settings: Sequence[str], budget: str) -> dict[str, Any]:
    """The row of a rival that has not run."""
    row = empty_row(rival.name, budget) | {"tool": rival.name, "version": rival.version() or ""}
    return row | ({"contestant": f"{rival.name} {settings[0]}", "setting": settings[0]} if len(settings) == 1 else {})


def failed(row: dict[str, Any], why: SecateurError, budget: str) -> Entry:
    """The row of a rival that did not do its job."""
    said = f"{why.message}; {why.hint}" if why.hint else why.message
    sizes = dict.fromkeys((*SIZES, "kv"))
    return Entry(row | sizes | {"note": said, "budget": budget})


def _reading(do: Callable[[], Any]) -> Any:
    """Read a file of somebody else: it may break our reader in any way, and the others go on."""
    try:
        return do()
    except SecateurError:
        raise
    except Exception as error:
        raise RivalError(f"its file cannot be read: {type(error).__name__}: {error}") from error


def _same(rival: Rival, format: str, told: Mapping[str, Any]) -> str:
    """What its file takes as a budget: its bytes, and FLOPs of image models. Where ours lies in another kind of file,
    which would count its header and tokenizer as well, its bits per weight."""
    if rival.pictures:
        return f"{told['flops']:_} flops, {told['bytes']:_} bytes"
    if (format == "gguf") == (rival.format == "gguf"):
        return f"{told['bytes']:_} bytes"
    return f"{math.floor(1e4 * told['bits_per_weight']) / 1e4:.4f} bits/weight"


def largest(
    here: Field, rival: Rival, settings: Sequence[str], caps: Mapping[str, float]
) -> tuple[str, dict[str, Any]]:
    """The largest setting whose file keeps to the caps, and what is known of its run; RivalError where none does.

    Sizes are foreseen, and checked on the file: what came out too large gives way to the next smaller. A quick rival is
    not foreseen but asked, halving what is left each time.
    """
    if not caps:
        return settings[0], _made(here, rival, settings[0])
    guesses = {setting: guess for setting in settings if (guess := _guess(here, rival, setting)) is not None}
    if not guesses:
        raise RivalError(f"even {settings[0]} would leave nothing of this network")
    ordered = sorted(guesses, key=lambda setting: -guesses[setting]["bytes"])
    if rival.quick:
        at = bisect_left(ordered, True, key=lambda setting: _fits(_made(here, rival, setting), caps))
    else:
        at = next((at for at, setting in enumerate(ordered) if _fits(guesses[setting], caps)), len(ordered))
        if at == len(ordered):
            least = guesses[ordered[-1]]["bytes"]
            raise RivalError(f"even its smallest setting, {ordered[-1]}, takes about {least:,.0f} bytes")
        while at < len(ordered) and not _fits(_made(here, rival, ordered[at]), caps):
            at += 1
    if at == len(ordered):
        least = _made(here, rival, ordered[-1])["bytes"]
        raise RivalError(f"its smallest file takes {least:,} bytes, more than the budget")
    return ordered[at], _made(here, rival, ordered[at])


def _fits(told: Mapping[str, Any], caps: Mapping[str, float]) -> bool:
    return all(told[name] <= cap for name, cap in caps.items())


def _guess(here: Field, rival: Rival, setting: str) -> dict[str, float] | None:
    """About what a setting's file will take, as `_sizes` tells it of a file; None where there is no such setting of
    this network."""
    units, stored = here.case.stream.anatomy.units, here.case.checkpoint.tensors
    matrices = [(m.rows, m.cols, unit.block) for unit in units for m in unit.matrices]
    cut = {m.tensor for unit in units for m in unit.matrices}
    rest = sum(one.bytes for name, one in stored.items() if name not in cut)
    inside = [one for one in matrices if one[2] is not None]
    whole, counted = rival.payload(setting, matrices, rest), rival.payload(setting, inside, 0)
    if whole is None or counted is None:
        return None
    return {"bytes": whole, "bits_per_weight": 8 * (counted if here.over == "linear" else whole) / _weights(here)}


def _weights(here: Field) -> int:
    from secateur.cut.price import weights

    return weights(here.case, here.over)


def _job(here: Field) -> dict[str, Any]:
    """What a rival's file depends on beside its setting."""
    windows = here.case.stream.digest(here.case.calib)
    return {"fingerprint": here.case.checkpoint.fingerprint, "windows": windows, "over": here.over}


def folder_of(here: Field, rival: Rival, setting: str) -> Path:
    """Where a rival's run with a setting lies."""
    job = _job(here)
    of = f"{job['fingerprint'][:8]}-{job['windows'][:8]}-{here.over}"
    return here.out / "rivals" / of / f"{rival.file.stem}-{setting}"


def _made(here: Field, rival: Rival, setting: str, again: bool = False) -> dict[str, Any]:
    """Run a rival with one setting, unless that was done; what is known of the run, with the sizes of its file."""
    import numpy as np

    from secateur.export._write import write_text
    from secateur.model.disk import atomic

    folder = folder_of(here, rival, setting)
    file = folder / "run.json"
    if file.is_file() and not again:
        told = json.loads(file.read_text(encoding="utf-8"))
        if "bytes" in told and told["version"] == rival.version():
            return told
    here.tell(f"{rival.name} {setting}", 0, 1)
    tokens = folder.parent / "windows.npy"
    if not tokens.exists():
        with atomic(tokens) as opened:
            np.save(opened, _inputs(here, rival).cpu().numpy())
    place, device = here.case.checkpoint.folder, str(here.case.device)
    seed = here.how["seed"]
    told = run(rival, setting, folder, model=place, tokens=tokens, device=device, seed=seed, limit=here.limit)
    told |= _reading(lambda: (_picture_sizes if rival.pictures else _sizes)(here, folder / "packed"))
    write_text(file, json.dumps(told) + "\n")
    here.tell(f"{rival.name} {setting}", 1, 1)
    return told


def _inputs(here: Field, rival: Rival) -> Any:
    """What ours are calibrated on: windows of tokens, or pictures as a network takes them."""
    if not rival.pictures:
        return here.case.calib
    from secateur.parts.vision import open_vision

    return open_vision(here.model).prepare(here.case.calib.x)


def _sizes(here: Field, packed: Path) -> dict[str, Any]:
    """Bytes of the files that hold tensors, and bits of the tensors alone over the weights of the uncut network; with
    `--over linear` both only of the layers inside the blocks."""
    from secateur.model.checkpoint import open_tensors
    from secateur.parts.gguf.read import is_gguf, open_gguf

    if is_gguf(packed):
        found = open_gguf(packed)
        size, tensors = found.file.stat().st_size, {name: one.bytes for name, one in found.stored.items()}
        counted = {name for name, one in found.stored.items() if name.startswith("blk.") and len(one.shape) > 1}
    else:
        entries = open_tensors(packed)
        size = sum(file.stat().st_size for file in {entry.file for entry in entries.values()})
        tensors = {name: entry.bytes for name, entry in entries.items()}
        units = (unit for unit in here.case.stream.anatomy.units if unit.block is not None)
        layers = {m.tensor.removesuffix(".weight") for unit in units for m in unit.matrices}
        counted = {name for name in tensors if name.rpartition(".")[0] in layers and not name.endswith(".bias")}
    payload = sum(n for name, n in tensors.items() if here.over == "all" or name in counted)
    return {"bytes": size, "bits_per_weight": 8 * payload / _weights(here)}


def _picture_sizes(here: Field, packed: Path) -> dict[str, Any]:
    from secateur.model.flops import flops
    from secateur.parts.vision import open_vision

    found = open_vision(next(packed.glob("*.safetensors")))
    computed = sum(flops(found.network, found.example(1)).values())
    return {"bytes": found.bytes, "bits_per_weight": 8 * found.stored / _weights(here), "flops": computed}
