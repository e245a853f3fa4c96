"""The report of a cut: one page that needs nothing beside it, written from what the cut has left in its folder.

It can be written of a run that broke off, too: it shows what is there.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur import words
from secateur.report.examples import Examples, read
from secateur.report.pictures import Row
from secateur.types import DataError, PlanError, SecateurError

if TYPE_CHECKING:
    from secateur.model.history import History
    from secateur.types import Menu, Plan

log = logging.getLogger("secateur")

#: bits of the edits whose text does not say them
_BITS = {"keep": 16.0, "fp8": 8.0, "mxfp4": 4.0, "nvfp4": 4.0}


@dataclass(frozen=True)
class Run:
    """What a run has left behind; `result` is empty while it is not finished."""

    out: Path
    result: Mapping[str, Any]
    plan: Plan | None
    menu: Menu | None
    rows: tuple[Row, ...]
    examples: Examples | None = None  # what is held back, and what each of it lost
    priced: Menu | None = None  # of the menu and its narrower ones the one that offers what was carried out

    @property
    def trained(self) -> History | None:
        """How the uncut model was trained, where that lies beside it."""
        model = self.result.get("model") or self.about.get("model")
        return _history(Path(str(model))) if model else None

    @property
    def about(self) -> Mapping[str, Any]:
        """What is on record of how it was asked for."""
        return (self.plan.about if self.plan else {}) or (self.menu.about if self.menu else {})

    @property
    def each(self) -> str:
        """What a loss is counted by."""
        return "example" if "accuracy_after" in self.result else "token"

    @property
    def asked(self) -> str:
        return str(self.result["budget"].get("asked") or "") if self.result else self.plan.budget if self.plan else ""

    @property
    def caps(self) -> dict[str, float]:
        said = self.result["budget"] if self.result else {"asked": self.asked, **dict(self.about.get("caps") or {})}
        return words.caps(said)

    @property
    def spent(self) -> Mapping[str, float]:
        return self.result["spent"] if self.result else self.plan.spent if self.plan else {}

    @property
    def planned(self) -> tuple[float, float] | None:
        """Expected damage and its standard error, where a plan has told them."""
        found = [self.result.get("damage_predicted"), self.result.get("damage_error")] if self.result else []
        found = [self.plan.damage, self.plan.error] if self.plan and not found else found
        return (found[0], found[1] or 0.0) if found and found[0] is not None and math.isfinite(found[0]) else None

    @property
    def measured(self) -> tuple[float, float] | None:
        value = self.result.get("damage_measured")
        return None if value is None else (value, self.result.get("damage_measured_error") or 0.0)


def report(out: str | Path, result: Mapping[str, Any] | None = None) -> Path:
    """Write `report.html` into the folder of a cut (of a bench, of a training), and give its path.

    With `result`, what the cut gave back and the caller knows besides: it goes into `secateur.json`, whole, before.
    """
    from secateur.bench.versus import RESULT
    from secateur.export._write import write_text
    from secateur.report import slices
    from secateur.report.benched import draw as of_bench
    from secateur.report.page import draw
    from secateur.report.training import page as of_training

    out, benched = Path(out), Path(out) / RESULT
    if result is None and benched.is_file() and not (out / "secateur.json").exists():
        write_text(out / "report.html", of_bench(_bench(benched)))
        return out / "report.html"
    trained = _history(out) if result is None and not (out / "secateur.json").exists() else None
    if trained is not None:
        write_text(out / "report.html", of_training(trained, out.resolve().name, slices.section(slices.of_folder(out))))
        return out / "report.html"
    if result is not None:
        write_text(out / "secateur.json", json.dumps(dict(result), indent=1, default=str) + "\n")
    page = out / "report.html"
    write_text(page, draw(gather(out)))
    return page


def _history(folder: Path) -> History | None:
    """What a training has left in a folder; a page does without what cannot be read."""
    from secateur.model.history import History

    try:
        return History.load(folder)
    except DataError as why:
        log.warning("%s", why.message)
        return None


def _bench(file: Path) -> dict[str, Any]:
    """What a bench has left."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {**found, "rows": list(found["rows"])}
    except (ValueError, KeyError, TypeError) as why:
        raise PlanError(f"cannot read {file} ({why})", "give the same `secateur bench` again") from None


def figures(out: str | Path, folder: str | Path) -> list[Path]:
    """The figures of a cut as SVG files that stand alone, in the colours of a white page; what cannot be drawn is not
    written. The map of the network is saved from the page, at the zoom that one has chosen."""
    from secateur.bench.versus import RESULT
    from secateur.report import slices, training
    from secateur.report.benched import figures as of_bench

    out, folder = Path(out), Path(folder)
    if (out / RESULT).is_file() and not (out / "secateur.json").exists():
        return _saved(of_bench(_bench(out / RESULT)), folder)
    if not (out / "secateur.json").exists() and (trained := _history(out)) is not None:
        told = slices.of_folder(out)
        drawn = slices.curve({"slices": told["rows"]}, each=told["each"]) if told else ""
        return _saved({"training": training.curve(trained), "slices": drawn}, folder)
    return _saved(_of_cut(gather(out)), folder)


def _of_cut(run: Run) -> dict[str, str]:
    from secateur.report import examples, pictures, training
    from secateur.report.frontier import curve, lead, ours

    by = lead(run)
    floor = run.result.get("damage_floor", run.plan.bound if run.plan else None)
    return {
        "bits-by-depth": pictures.depth(run.rows, run.spent.get("bits_per_weight")),
        "frontier": pictures.frontier(
            curve(run.menu, by, run.caps) if run.menu else [], ours(run), run.measured, f"nats per {run.each}", by
        ),
        "training": training.curve(run.trained),
        "where-it-hurt": examples.picture(run.examples),
        "predicted-and-measured": pictures.agreement(run.planned, run.measured, floor),
    }


def _saved(drawn: Mapping[str, str], folder: Path) -> list[Path]:
    from secateur.export._write import write_text
    from secateur.report import pictures

    folder.mkdir(parents=True, exist_ok=True)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    for name, svg in drawn.items():
        if svg:
            write_text(folder / f"{name}.svg", pictures.alone(svg, style))
    return [folder / f"{name}.svg" for name, svg in drawn.items() if svg]


def gather(out: Path) -> Run:
    """Read whatever a run has left: result, plan, menu; a PlanError where there is nothing at all."""
    from secateur.parts.edits import parse
    from secateur.parts.menus import load_plan

    file = out / "plan.yaml"
    plan = load_plan(file) if file.is_file() else None
    result = _result(out)
    if (out / ".work").exists() and plan is not None:
        result = {}  # of a run before this one
    if plan is None and not result and not (out / "menu").exists():
        raise PlanError(f"there is no cut in {out}", f"make one: secateur cut MODEL --data text.txt -o {out}")
    if plan is not None and result and {u: str(e) for u, e in plan.edits.items()} != dict(result["edits"]):
        plan = None  # what was carried out was another one
    edits = dict(result["edits"]) if result else {u: str(e) for u, e in plan.edits.items()} if plan else {}
    menu = _menu(out, result, edits)
    total = (result.get("damage_predicted") if result else plan.damage if plan else None) or 0.0
    priced = menu.that_offers({unit: parse(edit) for unit, edit in edits.items()}) if menu and edits else menu
    run = Run(out, result, plan, menu, tuple(_rows(edits, priced, total)), priced=priced)
    return replace(run, examples=read(out, f"nats per {run.each}")) if result else run


def _result(out: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((out / "secateur.json").read_text(encoding="utf-8"))
        return {key: found[key] for key in ("budget", "spent", "edits", "loss_before", "loss_after")} | found
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as why:
        raise PlanError(f"cannot read {out / 'secateur.json'} ({why})", "cut again") from None


def _menu(out: Path, result: Mapping[str, Any], edits: Mapping[str, str]) -> Menu | None:
    """The menu of the cut: named in its result, in its folder, or beside it; one of other units is another model's."""
    from secateur.parts.menus import load_menu

    named = [Path(result["menu"])] if result.get("menu") else []
    for folder in (*named, out / "menu", out.parent / "menu"):
        try:
            menu = load_menu(folder) if (folder / "menu.json").is_file() else None
        except SecateurError:
            continue  # the page does without
        if menu is not None and (not edits or {unit.name for unit in menu.units} == set(edits)):
            return menu
    return None


def _rows(edits: Mapping[str, str], menu: Menu | None, total: float) -> list[Row]:
    """Every unit with what it got. A unit's damage is its share of the `total` that was expected of the plan."""
    from secateur.parts.edits import text

    if menu is None:
        return [Row(unit, edit, bits=_said_bits(edit)) for unit, edit in edits.items()]
    column = {text(edit): e for e, edit in reversed(list(enumerate(menu.edits)))}
    at = [(u, unit, column.get(edits.get(unit.name, ""))) for u, unit in enumerate(menu.units)]
    whole = math.fsum(float(menu.damage[u, e]) for u, _, e in at if e is not None)
    scale = total / whole if whole > 0 and math.isfinite(whole) and math.isfinite(total) else 0.0
    rows = []
    for u, unit, e in at:
        known: dict[str, Any] = {"kind": unit.kind, "block": unit.block, "weights": unit.size}
        if e is not None:
            price = {name: float(cost[u, e]) for name, cost in menu.cost.items()}
            # what does not count (`--over linear`) has no payload, but its bytes
            bits = 8 * (price.get("payload") or price.get("bytes", math.nan)) / max(unit.size, 1)
            known |= {"bits": bits, "bytes": price.get("bytes")} if unit.size else {"weights": None}
            known |= {"damage": scale * float(menu.damage[u, e]), "error": scale * float(menu.error[u, e])}
        rows.append(Row(unit.name, edits.get(unit.name, ""), **known))
    return rows


def _said_bits(edit: str) -> float | None:
    """The bits in an edit's own words, without scales: all there is to know where no menu prices it."""
    said = re.search(r"(?:bits=|^ggml\('\D+)(\d+)", edit)
    return float(said[1]) if said else _BITS.get(edit.partition("(")[0])
