"""The report of a finished cut: one page that needs nothing beside it, read from the files that the cut left behind."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.types import BudgetError, PlanError

if TYPE_CHECKING:
    from secateur.types import Menu

#: how many plans the curve is drawn through
POINTS = 12
#: bits per weight beyond which nobody asks
FAR = 9.0
#: columns and curve, in pixels
WIDE, HIGH = 880, 200
#: bits of the edits whose text does not say them
_BITS = {"keep": 16.0, "fp8": 8.0, "mxfp4": 4.0, "nvfp4": 4.0}

STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#6e7781;--line:#d0d7de;--leaf:#2d8659;--cut:#c8384d;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--leaf:#4fb286;--cut:#ef6b7d;
--paper:#0d1117}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:920px;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .3rem}p{margin:.3rem 0}.soft{color:var(--soft)}
.tiles{display:flex;flex-wrap:wrap;gap:1rem 2.5rem;margin:1.4rem 0}.tiles b{display:block;font-size:1.5rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
details{margin:1.5rem 0}
th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--line)}td.n,th.n{text-align:right}
svg{width:100%;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--soft)}
.leaf{fill:var(--leaf)}.curve{fill:none;stroke:var(--leaf);stroke-width:2}.axis{stroke:var(--line)}
.cut{stroke:var(--cut);fill:none;stroke-width:2}.dot{fill:var(--cut)}code{font-size:.9em;overflow-wrap:anywhere}
"""


def report(out: str | Path) -> Path:
    """Write `report.html` into the folder of a finished cut, and give its path."""
    out = Path(out)
    result = _result(out)
    menu = _menu(out, set(result["edits"]))
    page = out / "report.html"
    partial = page.with_suffix(".partial")
    partial.write_text(_page(out, result, menu), encoding="utf-8")
    partial.replace(page)
    return page


def _result(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / "secateur.json").read_text(encoding="utf-8"))
        return {key: found[key] for key in ("budget", "spent", "edits", "loss_before", "loss_after")} | found
    except FileNotFoundError:
        raise PlanError(f"there is no finished cut in {out}", f"make one: secateur cut MODEL ... -o {out}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"cannot read {out / 'secateur.json'} ({error})", "cut again") from None


def _menu(out: Path, units: set[str]) -> Menu | None:
    """The menu of the cut, where it lies in its folder or beside it; a menu of other units is another model's."""
    from secateur.parts.menus import load_menu

    for folder in (out / "menu", out.parent / "menu"):
        if (folder / "menu.json").exists():
            menu = load_menu(folder)
            if {unit.name for unit in menu.units} == units:
                return menu
    return None


def _page(out: Path, result: Mapping[str, Any], menu: Menu | None) -> str:
    model, asked = str(result.get("model", "")), str(result["budget"].get("asked", "by hand"))
    title = f"{Path(model).name or 'a model'} cut to {asked}"
    parts = [
        f"<h1>{escape(title)}</h1><p class=soft>{escape(model)} &rarr; {escape(str(out))}</p>",
        _tiles(result),
        "<h2>What every matrix got</h2><p class=soft>One column a unit: as wide as it has weights, as tall as the bits "
        "that a weight takes in the file, 16 at most.</p>",
        _columns(_units(result["edits"], menu)),
    ]
    if menu is not None and (curve := _frontier(menu)):
        parts += [
            "<h2>What other budgets would cost</h2><p class=soft>The damage predicted of the best plan at each size, "
            "in nats per token; the ring is what this cut was measured to cost, with its standard error.</p>",
            _curve(curve, result),
        ]
    parts += [_table(result["edits"], menu), _left_alone(result.get("skipped", ())), _foot(result)]
    head = f'<meta charset=utf-8><meta name=viewport content="width=device-width"><title>{escape(title)}</title>'
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _tiles(result: Mapping[str, Any]) -> str:
    """The figures that one looks for first."""
    spent = result["spent"]
    tiles = {
        "bytes": f"{spent['bytes']:,.0f}" if "bytes" in spent else None,
        "bits per weight": f"{spent['bits_per_weight']:.3f}" if "bits_per_weight" in spent else None,
        "loss before, nats per token": f"{result['loss_before']:.4f}",
        "loss after": f"{result['loss_after']:.4f}",
        "damage predicted": _pair(result, "damage_predicted", "damage_error"),
        "damage measured": _pair(result, "damage_measured", "damage_measured_error"),
        "KL from the uncut": _pair(result, "kl", "kl_error"),
        "same first choice": f"{result['agreement']:.1%}" if result.get("agreement") is not None else None,
    }
    shown = [f"<div><b>{value}</b><span class=soft>{name}</span></div>" for name, value in tiles.items() if value]
    return f"<div class=tiles>{''.join(shown)}</div>"


def _pair(result: Mapping[str, Any], value: str, error: str) -> str | None:
    if result.get(value) is None:
        return None
    return f"{result[value]:.4f}" + (f" &plusmn; {result[error]:.4f}" if result.get(error) is not None else "")


def _units(edits: Mapping[str, str], menu: Menu | None) -> list[tuple[str, str, int, float]]:
    """(unit, edit, weights, bits of one weight): the file's prices from the menu, else what the edit's name says."""
    from secateur.parts.edits import text

    size = {unit.name: unit.size for unit in menu.units} if menu else {}
    row = {unit.name: at for at, unit in enumerate(menu.units)} if menu else {}
    column = {text(edit): at for at, edit in enumerate(menu.edits)} if menu else {}
    found = []
    for unit, edit in edits.items():
        bits = _said_bits(edit)
        if menu is not None and unit in row and edit in column:
            priced = 8 * float(menu.cost["payload"][row[unit], column[edit]]) / size[unit]
            bits = priced if math.isfinite(priced) else bits
        found.append((unit, edit, size.get(unit, 1), bits))
    return found


def _said_bits(edit: str) -> float:
    said = re.search(r"bits=(\d+)", edit)
    return float(said[1]) if said else _BITS.get(edit.partition("(")[0], 16.0)


def _columns(units: Sequence[tuple[str, str, int, float]]) -> str:
    """Every unit as a column, the cut as the line along their tops."""
    total, gap = sum(weights for _, _, weights, _ in units), 1.0 if len(units) < 300 else 0.0
    x, parts, line = 0.0, [], []
    for unit, edit, weights, bits in units:
        wide, top = weights / total * WIDE, HIGH - min(bits, 16) / 16 * (HIGH - 20)
        told = escape(f"{unit}: {edit}, {bits:.2f} bits")
        parts.append(
            f'<rect class=leaf x="{x:.1f}" y="{top:.1f}" width="{max(wide - gap, 0.3):.1f}" height="{HIGH - top:.1f}">'
            f"<title>{told}</title></rect>"
        )
        line += [f"{x:.1f},{top - 2:.1f}", f"{x + wide:.1f},{top - 2:.1f}"]
        x += wide
    marks = "".join(
        f'<line class=axis x1=0 x2="{WIDE}" y1="{y}" y2="{y}"/><text x="{WIDE + 6}" y="{y + 4}">{bits}</text>'
        for bits in (4, 8, 16)
        for y in [round(HIGH - bits / 16 * (HIGH - 20), 1)]
    )
    drawn = f'{marks}{"".join(parts)}<polyline class=cut points="{" ".join(line)}"/>'
    return f'<svg viewBox="0 0 {WIDE + 30} {HIGH + 4}" role=img aria-label="Bits of every unit">{drawn}</svg>'


def _frontier(menu: Menu) -> list[tuple[float, float]]:
    """(bits per weight, predicted damage) of the best plans from the cheapest to the dearest."""
    import numpy as np

    from secateur.cut import plan

    payload = np.where(np.isfinite(menu.damage), menu.cost["payload"], np.nan)
    fixed = menu.fixed.get("payload", 0.0)
    least, most = (8 * (pick(payload, axis=1).sum() + fixed) / menu.weights for pick in (np.nanmin, np.nanmax))
    points = []
    for bits in np.geomspace(least * 1.0005, max(min(most, FAR), least * 1.001), POINTS):
        try:
            (found,) = plan(menu, [f"{bits:.4f} bits/weight"])
        except BudgetError:  # rounding took the budget below the cheapest plan
            continue
        points.append((found.spent["bits_per_weight"], found.damage))
    return [point for point in points if point[1] > 0]


def _curve(points: Sequence[tuple[float, float]], result: Mapping[str, Any]) -> str:
    """Damage against size, both in doublings."""
    here, measured = result["spent"].get("bits_per_weight", 0.0), result.get("damage_measured") or 0.0
    ring = [(here, measured)] if here > 0 and measured > 0 else []
    sizes, damages = zip(*points, *ring, strict=True)
    low, high = math.floor(math.log10(min(damages))), math.ceil(math.log10(max(damages)))
    left, right = math.log2(min(sizes)), math.log2(max(sizes))

    def at(bits: float, damage: float) -> tuple[float, float]:
        x = 60 + (math.log2(bits) - left) / max(right - left, 1e-9) * (WIDE - 80)
        y = 10 + (high - math.log10(damage)) / max(high - low, 1) * (HIGH - 30)
        return round(x, 1), round(min(max(y, 4), HIGH - 16), 1)

    parts = []
    for power in range(low, high + 1):
        _, y = at(sizes[0], 10.0**power)
        parts.append(
            f'<line class=axis x1=60 x2="{WIDE}" y1="{y}" y2="{y}"/><text x=0 y="{y + 4}">{10.0**power:g}</text>'
        )
    for bits in (1, 1.5, 2, 3, 4, 6, 8, 12, 16):
        if left <= math.log2(bits) <= right:
            x, _ = at(bits, 10.0**low)
            parts.append(f'<text x="{x - 4}" y="{HIGH + 2}">{bits:g}</text>')
    line = " ".join(f"{x},{y}" for x, y in (at(*point) for point in points))
    parts.append(f'<polyline class=curve points="{line}"/>')
    for here, measured in ring:
        error = result.get("damage_measured_error") or 0.0
        x, y = at(here, measured)
        _, top = at(here, measured + error)
        _, bottom = at(here, max(measured - error, 10.0**low))
        parts.append(
            f'<line class=cut x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/><circle class=cut cx="{x}" cy="{y}" r=6 />'
        )
    label = f'<text x="{WIDE - 90}" y="{HIGH + 16}">bits per weight</text>'
    drawn = "".join(parts) + label
    return f'<svg viewBox="0 0 {WIDE + 10} {HIGH + 20}" role=img aria-label="Damage against size">{drawn}</svg>'


def _table(edits: Mapping[str, str], menu: Menu | None) -> str:
    rows = "".join(
        f"<tr><td>{escape(unit)}<td><code>{escape(edit)}</code><td class=n>{weights:,}<td class=n>{bits:.3f}"
        for unit, edit, weights, bits in _units(edits, menu)
    )
    weights = "weights" if menu else "units"
    head = f"<tr><th>unit<th>edit<th class=n>{weights}<th class=n>bits of one weight"
    return f"<details><summary>All {len(edits)} units</summary><table>{head}{rows}</table></details>"


def _left_alone(skipped: Sequence[Mapping[str, str]]) -> str:
    if not skipped:
        return ""
    rows = "".join(f"<tr><td>{escape(one['unit'])}<td>{escape(one['reason'])}" for one in skipped)
    return f"<h2>Left as it was</h2><table><tr><th>unit<th>why{rows}</table>"


def _foot(result: Mapping[str, Any]) -> str:
    """Where it has been seen to load, and what it took."""
    export, lines = result.get("export") or {}, []
    if export.get("verified_in"):
        wrong = export.get("logit_error")
        exact = f"no logit differs by more than {wrong:.1e}" if wrong else "its logits are equal"
        lines.append(f"Seen to load in {export['verified_in']}: {exact}.")
    if result.get("coverage") is not None:
        lines.append(f"{result['coverage']:.1%} of the parameters were cut.")
    if result.get("seconds") is not None and result.get("peak_rss_bytes"):
        lines.append(
            f"It took {result['seconds']:.0f} seconds and {result['peak_rss_bytes'] / 1e6:,.0f} MB of memory at most."
        )
    return "".join(f"<p class=soft>{escape(line)}</p>" for line in lines)
