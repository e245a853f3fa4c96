"""Bench: any set of methods on your model, at the same true bytes, by one scorer; files of others beside them.

A contestant is written `lagrange+two-sided`: parts joined by `+`, each an allocator, a rounding, a damage, or the slug
of a method whose own call names one (`gptq` is `--round one-sided`). What it does not say is as `secateur cut` has it.
The model is surveyed once for each damage, and each plan is carried out and measured. The whole file's bytes are what
is compared: a plan never spends more than its budget, and what it did spend stands in its row.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur import calls
from secateur.catalogue import methods, nearest
from secateur.types import Budget, BudgetError, Plan, SecateurError

#: what `secateur cut` takes where nothing is said
USUAL = {"allocate": "lagrange", "round": "two-sided", "damage": "kronecker"}
#: of a standard error, for an interval that holds the true value 19 times of 20
WIDE = 1.96


@dataclass(frozen=True)
class Contestant:
    """One way to cut, by the name it was given, and what that means."""

    name: str
    allocate: str
    round: str
    damage: str


def contestant(words: str) -> Contestant:
    """Read `uniform+gptq`; a SecateurError that names the nearest where a part is unknown or says something twice."""
    known, found = _parts(), {}
    for word in filter(None, (part.strip() for part in words.split("+"))):
        meant = known.get(word) or known.get(word.replace("_", "-"))
        if meant is None:
            close = nearest(word, known)
            hint = f"did you mean `{close}`?" if close else f"there are {', '.join(sorted(known))}"
            raise SecateurError(f"there is no allocator, rounding, damage or method `{word}`", hint)
        if twice := set(meant) & set(found):
            said = f"`{words}` says twice how to {' and '.join(sorted(twice))}"
            raise SecateurError(said, "name at most one allocator, one rounding and one damage")
        found |= meant
    if not found:
        raise SecateurError("a contestant has no name", f"write it like {USUAL['allocate']}+{USUAL['round']}")
    return Contestant(words.strip(), **(USUAL | found))


def _parts() -> dict[str, dict[str, str]]:
    """Every word that a contestant may be made of, and which options it stands for."""
    from secateur.apply import ROUNDERS
    from secateur.parts import allocate, damage

    found = {name: {"round": name} for name in ROUNDERS} | {name: {"damage": name} for name in damage.names()}
    found |= {name: {"allocate": name} for name in allocate.names()}
    for method in methods():
        options = calls.words(method.use)[2]
        meant = {key: options[key] for key in USUAL if key in options}
        if meant and method.name not in found:
            found[method.name] = meant
    return found


def bench(
    model: str,
    data: str,
    budgets: Sequence[str],
    contestants: Sequence[str],
    *,
    out: str | Path,
    text: str | None = None,
    beside: Sequence[str] = (),
    format: str = "compressed-tensors",
    over: str = "all",
    samples: int = 128,
    seq_len: int | None = None,
    seed: int = 0,
    device: str | None = None,
    keep_files: bool = False,
    tell: Any = None,
) -> dict[str, Any]:
    """Rows of every contestant at every budget: bytes, KL and rise of the loss with 95% intervals, seconds.

    They are measured on the windows of `data` that nothing was calibrated on, or on all of `text`, a file that nobody
    has seen: then folders of others stand `beside` ours. Finished rows are kept in `out`; the same call goes on.
    """
    from secateur.cut import plan, survey

    out, tell = Path(out), tell or (lambda *_: None)
    asked = [contestant(words) for words in contestants]
    for budget in budgets:
        Budget.parse(budget)
    if beside and text is None:
        raise SecateurError("files of others can only be measured on a text of its own", "give one with --text")
    how = {"format": format, "samples": samples, "seq_len": seq_len, "seed": seed, "device": device}
    rows, folders = [], {}
    for damage in dict.fromkeys(one.damage for one in asked):
        menu_at = out / f"menu-{damage}"
        menu = survey(model, data, out=menu_at, over=over, damage=damage, tell=tell, **how)
        for one in (one for one in asked if one.damage == damage):
            for at, budget in enumerate(budgets):
                try:
                    (chosen,) = plan(menu, [budget], one.allocate)
                except BudgetError as why:  # a rule may find no plan where others do: that is a result
                    rows.append(_row(one, budget) | {"note": why.message})
                    continue
                folder = out / f"{one.name}-{at + 1}"
                told = _carried_out(model, data, one, chosen, folder, menu_at, text, how, tell)
                folders[str(folder)] = len(rows)
                rows.append(_row(one, budget, chosen, told))
    if text is not None:
        rows = _measured(model, rows, folders, list(beside), text, seed, device, tell)
    if not keep_files:
        for folder in folders:
            _drop_tensors(Path(folder))
    turn = {name: at for at, name in enumerate([*(one.name for one in asked), *beside])}
    rows.sort(key=lambda row: ([*budgets, ""].index(row["budget"]), turn[row["contestant"]]))
    result = {"model": str(model), "data": str(data), "text": text, "budgets": list(budgets), "rows": rows}
    from secateur.export._write import write_text

    write_text(out / "bench.json", json.dumps(result, indent=1) + "\n")
    if drawn := picture(rows):
        write_text(out / "bench.svg", drawn)
    return result | {"picture": str(out / "bench.svg") if drawn else None}


def _carried_out(
    model: str,
    data: str,
    one: Contestant,
    chosen: Plan,
    folder: Path,
    menu: Path,
    text: str | None,
    how: Mapping[str, Any],
    tell: Any,
) -> dict[str, Any]:
    """What applying the plan gave; taken up where the very same was done before and its file, if needed, is there."""
    from secateur.apply import apply
    from secateur.export._write import write_text
    from secateur.parts.edits import text as spelled

    done = {"edits": {unit: spelled(edit) for unit, edit in chosen.edits.items()}, "round": one.round}
    done |= {
        "fingerprint": chosen.about.get("fingerprint"),
        **{key: how[key] for key in ("samples", "seq_len", "seed")},
    }
    mark = folder / "bench-row.json"
    if mark.is_file() and (text is None or list(folder.glob("*.safetensors"))):
        before = json.loads(mark.read_text(encoding="utf-8"))
        if before["of"] == done:
            return before["told"]
    options = {key: value for key, value in how.items() if key != "format"}
    told = apply(model, chosen, data=data, out=folder, menu=menu, round=one.round, tell=tell, **options)
    write_text(mark, json.dumps({"of": done, "told": told}) + "\n")
    return told


def _row(
    one: Contestant, budget: str, chosen: Plan | None = None, told: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    known = {"contestant": one.name, "allocate": one.allocate, "round": one.round, "damage": one.damage}
    known |= {"budget": budget, "bytes": None, "bits_per_weight": None, "predicted": None, "note": None}
    known |= dict.fromkeys(("kl", "kl_interval", "rise", "rise_interval", "agreement", "seconds"))
    if chosen is None or told is None:
        return known
    known |= {"bytes": told["export"]["bytes_on_disk"], "bits_per_weight": told["spent"]["bits_per_weight"]}
    known |= {"predicted": chosen.damage, "seconds": told["seconds"], "agreement": told["agreement"]}
    known |= _interval("kl", told["kl"], told["kl_error"])
    return known | _interval("rise", told["damage_measured"], told["damage_measured_error"])


def _interval(name: str, value: float, error: float) -> dict[str, Any]:
    return {name: value, f"{name}_interval": [value - WIDE * error, value + WIDE * error]}


def _measured(
    model: str,
    rows: list[dict[str, Any]],
    folders: Mapping[str, int],
    beside: list[str],
    text: str,
    seed: int,
    device: str | None,
    tell: Any,
) -> list[dict[str, Any]]:
    """The rows with figures on a text of its own, and a row for each folder of others."""
    from secateur.measure import measure

    found = measure([*folders, *beside], text, against=model, seed=seed, device=device, tell=tell)["rows"]
    for folder, told in zip([*folders, *beside], found, strict=True):
        figures = {key: told[key] for key in ("bytes", "bits_per_weight", "agreement")}
        if told["kl"] is not None:
            figures |= _interval("kl", told["kl"], told["kl_error"]) | _interval(
                "rise", told["rise"], told["rise_error"]
            )
        if folder in folders:
            rows[folders[folder]] |= {key: value for key, value in figures.items() if key != "bits_per_weight"}
        else:
            rows.append(_row(Contestant(folder, "", "", ""), "") | figures | {"note": told["note"]})
    return rows


def _drop_tensors(folder: Path) -> None:
    """What a bench leaves of a cut: the record and the plan, not gigabytes."""
    for file in (*folder.glob("*.safetensors"), folder / "config.json"):
        file.unlink(missing_ok=True)
    shutil.rmtree(folder / ".work", ignore_errors=True)


def winners(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The contestant with the least KL at each budget, where it is known."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["kl"] is not None and row["budget"] and row["kl"] < best.get(row["budget"], {"kl": math.inf})["kl"]:
            best[row["budget"]] = row
    return {budget: row["contestant"] for budget, row in best.items()}


def picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """KL against bytes as SVG, a line a contestant, with its intervals; nothing where there is nothing to draw."""
    from secateur.pictures import alone, rivals

    known = [row for row in rows if row["kl"] is not None and row["kl"] > 0 and row["bytes"]]
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return alone(rivals(known), style) if known else ""
