"""Bench: any set of methods on your model, at the same true bytes, by one scorer; tools of others beside them.

The model is surveyed once for each damage, and each plan is carried out and measured. The whole file's bytes are what
is compared: a plan never spends more than its budget, and what it did spend stands in its row. A rival knows few sizes:
at each budget it takes the largest that fits, and what its file takes becomes a budget that the first contestant meets.
Every row is set against the first contestant's at the same budget, window by window.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.bench.contestants import Contestant, contestant
from secateur.bench.presses import meet_press
from secateur.bench.versus import RESULT, ROW, Entry, Field, beside_ours, empty_row, meet
from secateur.maths.bootstrap import bootstrap
from secateur.types import Budget, BudgetError, Menu, SecateurError


def bench(
    model: str,
    data: str,
    budgets: Sequence[str],
    contestants: Sequence[str],
    *,
    out: str | Path,
    text: str | None = None,
    beside: Sequence[str] = (),
    rivals: Sequence[str] = (),
    rival_pythons: Sequence[str] = (),
    rival_limit: float | None = None,
    format: str | None = None,
    over: str = "all",
    edits: str = "bits",
    samples: int | None = None,
    seq_len: int | None = None,
    seed: int = 0,
    device: str | None = None,
    keep_files: bool = False,
    again: str = "",
    tell: Any = None,
) -> dict[str, Any]:
    """Rows of every contestant at every budget: bytes, KL and rise of the loss with 95% intervals, seconds.

    They are measured on the windows of `data` that nothing was calibrated on, or on all of `text`, a file that nobody
    has seen: then folders of others stand `beside` ours. `rivals` are tools of others, run here (`bench/rivals`);
    with one that shortens caches everybody is measured behind its prompt (`presses.py`).
    Finished rows are kept in `out`; the same call goes on. `out/report.html` shows them, also of a run that broke off;
    `again` is the command that it says.
    """
    from secateur.bench import rivals as tools
    from secateur.cut import survey
    from secateur.cut.opening import usual_format
    from secateur.measure.scorer import scorer
    from secateur.parts.vision import is_vision

    out, tell = Path(out), tell or (lambda *_: None)
    asked = [contestant(words) for words in contestants]
    met = [tools.find(words, tools.interpreters(rival_pythons)) for words in rivals]
    _check(model, budgets, asked, met, beside, text)
    format = format or (met[0][0].format if met else usual_format(model))
    how = {"format": format, "samples": samples, "seq_len": seq_len, "seed": seed, "device": device}
    kinds = ",".join(_kinds(model, format, edits, budgets, met))
    menus = {
        damage: survey(model, data, out=out / f"menu-{damage}", over=over, damage=damage, edits=kinds, tell=tell, **how)
        for damage in dict.fromkeys(one.damage for one in asked)
    }
    about = {"model": str(model), "data": str(data), "text": text, "budgets": list(budgets), "format": format}
    about |= {"reference": asked[0].name, "each": "example" if is_vision(model) else "token", "again": again}
    prompt = max((rival.prompt for rival, _ in met), default=0.0)
    about |= {"prompt": prompt} if prompt else {}  # a share of every window that is read and not scored
    entries: list[Entry] = []
    try:
        with scorer(model, seed=seed, device=device, tell=tell, prompt=prompt) as score:
            here = Field(model, data, text, out, how, score, tell, rival_limit or tools.LIMIT, over, prompt)
            for budget in budgets:
                entries.extend(_ours(here, one, budget, menus) for one in asked)  # one by one: each is kept
                for rival in (rival for rival, setting in met if setting is None):
                    entries += _met(here, rival, rival.settings, budget, asked[0], menus, entries)
            for rival, setting in met:
                if setting is not None:
                    entries += _met(here, rival, (setting,), "", asked[0], menus, entries)
            entries.extend(beside_ours(here, folder) for folder in beside)
    except BaseException:  # what is there is shown; the same command goes on
        _written(out, about | {"finished": False}, entries)
        raise
    if not keep_files:
        for folder in (*(file.parent for file in out.glob(f"*/{ROW}")), *out.glob("rivals/*/*/")):
            _drop_tensors(folder)
    return _written(out, about | {"finished": True}, entries)


def _written(out: Path, about: Mapping[str, Any], entries: Sequence[Entry]) -> dict[str, Any]:
    """The result: as JSON, as a picture, and as a page."""
    from secateur.export._write import write_text
    from secateur.report.benched import draw

    order = list(dict.fromkeys(one.row["budget"] for one in entries))
    entries = sorted(entries, key=lambda one: order.index(one.row["budget"]))
    _set_against(entries, about["reference"])
    rows = [one.row for one in entries]
    result = {**about, "rows": rows}
    write_text(out / RESULT, json.dumps(result, indent=1) + "\n")
    if drawn := picture(rows):
        write_text(out / "bench.svg", drawn)
    write_text(out / "report.html", draw(result))
    return result | {"picture": str(out / "bench.svg") if drawn else None, "report": str(out / "report.html")}


def _kinds(
    model: str, format: str, edits: str, budgets: Sequence[str], met: Sequence[tuple[Any, str | None]]
) -> tuple[str, ...]:
    """The kinds of edits that are asked for, and those without which the budgets could not be kept to."""
    from secateur.cut.price import needed
    from secateur.export import find
    from secateur.parts.edits import asked
    from secateur.parts.vision import is_vision

    kinds, pictures = asked(edits), is_vision(model)
    fewer = ["1 flops"] if any(rival.pictures for rival, _ in met) else []  # what its file computes will be a budget
    every = (needed(Budget.parse(budget), kinds, find(format), pictures) for budget in (*budgets, *fewer))
    theirs = (rival.edits for rival, _ in met)
    return tuple(dict.fromkeys(kind for some in (kinds, *every, *theirs) for kind in some))


def _check(
    model: str,
    budgets: Sequence[str],
    asked: Sequence[Contestant],
    met: Sequence[tuple[Any, str | None]],
    beside: Sequence[str],
    text: str | None,
) -> None:
    """What cannot be is said before the long part."""
    from secateur.bench import rivals as tools
    from secateur.parts.vision import is_vision

    for budget in budgets:
        Budget.parse(budget)
    if not asked:
        raise SecateurError("nobody is to cut", "name at least one method with --methods")
    if not budgets and not any(setting for _, setting in met):
        raise SecateurError("there is no budget", "give --budgets, or a rival with a setting, like llama.cpp:q4_k_m")
    if beside and text is None:
        raise SecateurError("files of others can only be measured on a text of its own", "give one with --text")
    for rival, _ in met:
        if rival.pictures != is_vision(model):
            what, able = ("image" if rival.pictures else "language"), tools.every({})
            others = ", ".join(one.name for one in able if one.pictures != rival.pictures)
            raise SecateurError(f"{rival.name} cuts {what} models", f"for this one there are {others}")
        if rival.version() is None:
            raise SecateurError(f"{rival.name} is not installed for {rival.python}", rival.get())


def _ours(here: Field, one: Contestant, budget: str, menus: Mapping[str, Menu]) -> Entry:
    """One contestant at one budget, cut and measured, or taken up where the very same was done before."""
    from secateur.cut import plan
    from secateur.cut.applying import apply
    from secateur.cut.examples import WINDOWS
    from secateur.parts.edits import text as spelled

    row = empty_row(one.name, budget) | {"allocate": one.allocate, "round": one.round, "damage": one.damage}
    try:
        (chosen,) = plan(menus[one.damage], [budget], one.allocate)
    except BudgetError as why:  # a rule may find no plan where others do: that is a result
        return Entry(row | {"note": why.message})
    folder = here.out / f"{one.name}-{_slug(budget)}"
    done = {"edits": {unit: spelled(edit) for unit, edit in chosen.edits.items()}, "round": one.round}
    done |= {"fingerprint": chosen.about.get("fingerprint"), **here.key()}

    def cut() -> Entry:
        options = {key: value for key, value in here.how.items() if key != "format"}
        menu = here.out / f"menu-{one.damage}"
        told = apply(
            here.model, chosen, data=here.data, out=folder, menu=menu, round=one.round, tell=here.tell, **options
        )
        row.update(bytes=told["export"]["bytes_on_disk"], bits_per_weight=told["spent"]["bits_per_weight"])
        row.update(flops=told["spent"].get("flops"), kv=told["spent"].get("kv"))
        row.update(predicted=chosen.damage, seconds=told["seconds"], agreement=told["agreement"])
        windows = json.loads((folder / WINDOWS).read_text(encoding="utf-8"))
        if here.text is None and not here.prompt:
            return Entry(row, windows["kl"], windows["rise"])
        return here.measured(row, folder)

    return here.once(folder, done, cut)


def _met(
    here: Field,
    rival: Any,
    settings: Sequence[str],
    budget: str,
    first: Contestant,
    menus: Mapping[str, Menu],
    before: Sequence[Entry],
) -> list[Entry]:
    """A rival at a budget, and the first contestant at the bytes of the rival's file."""
    from secateur.cut.planning import caps_of

    menu = menus[first.damage]
    caps = caps_of(menu, Budget.parse(budget)) if budget else {}
    theirs = (meet_press if rival.prompt else meet)(here, rival, settings, caps, budget)
    same = theirs.row["budget"]
    if theirs.row["bytes"] is None or any(e.row["budget"] == same and e.row["bytes"] for e in before):
        known = [e for e in before if e.row["contestant"] == theirs.row["contestant"] and e.row["budget"] == same]
        return [] if known else [theirs]  # the same file may be the largest that fits two budgets
    return [_ours(here, first, same, menus), theirs]


def _slug(budget: str) -> str:
    """A budget as a part of a folder's name."""
    return re.sub(r"[^a-z0-9.%]+", "-", budget.lower()).strip("-").replace("%", "percent")


def _set_against(entries: Sequence[Entry], first: str) -> None:
    """Every row against the first contestant's at the same budget: what it has more of, window by window."""
    theirs = {one.row["budget"]: one for one in entries if one.row["contestant"] == first and one.kls}
    for one in entries:
        other = theirs.get(one.row["budget"])
        if other is None or other is one or len(other.kls) != len(one.kls):
            continue
        for name, mine, its in (("kl", one.kls, other.kls), ("rise", one.rises, other.rises)):
            more = [a - b for a, b in zip(mine, its, strict=True)]
            one.row[f"{name}_more"] = math.fsum(more) / len(more)
            one.row[f"{name}_more_interval"] = list(bootstrap(more))


def _drop_tensors(folder: Path) -> None:
    """What a bench leaves of a cut: the record and the plan, not gigabytes."""
    from secateur.export import find, names

    for file in {file for name in names() for file in find(name).disk.files(folder)} | {folder / "config.json"}:
        file.unlink(missing_ok=True)
    for inside in (".work", "packed", "dense", "f16"):  # our unfinished work, and what rivals leave
        shutil.rmtree(folder / inside, ignore_errors=True)


def winners(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The contestant with the least KL at each budget, where it is known; where others were met at any, only there."""
    met: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        met.setdefault(row["budget"], []).append(row)
    contested = {budget: some for budget, some in met.items() if len(some) > 1} or met
    known = {budget: [row for row in some if row["kl"] is not None] for budget, some in contested.items() if budget}
    return {budget: min(some, key=lambda row: row["kl"])["contestant"] for budget, some in known.items() if some}


def picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """KL against bytes as SVG, a line a contestant, with its intervals; nothing where there is nothing to draw."""
    from secateur.report.pictures import alone, rivals

    known = [row for row in rows if row["kl"] is not None and row["kl"] > 0 and row["bytes"]]
    style = Path(__file__).parent.with_name("report").joinpath("page.css").read_text(encoding="utf-8")
    return alone(rivals(known), style) if known else ""
