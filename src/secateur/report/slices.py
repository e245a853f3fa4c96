"""What the slices of a supernet lose: loss against size as a picture, and as a part of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from secateur import words
from secateur.report.pictures import scale, svg, whole

Rows = Sequence[Mapping[str, Any]]


def of_folder(folder: Path) -> dict[str, Any]:
    """What a training of several sizes has left of its slices; empty where it was none."""
    try:
        told = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
        rows = [row for row in told["slices"] if row["slice"]]
        return {"each": str(told["each"]), "rows": rows} if rows and all("loss" in row for row in rows) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def section(told: Mapping[str, Any]) -> str:
    """The slices as a picture and as a table."""
    if not told:
        return ""
    each, rows = told["each"], told["rows"]
    heads = ("slice", "bytes", f"FLOPs per {each}", f"loss, nats per {each}")
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    lines = "".join(
        f"<tr><td>{escape(name(row))}</td><td>{row['bytes']:,}</td><td>{row['flops']:,}</td>"
        f"<td>{words.give_or_take(row['loss'], row.get('loss_error'))}</td></tr>"
        for row in rows
    )
    return (
        "<h2>What its slices lose</h2><p class=soft>Each is the first channels, heads and blocks of the whole network; "
        "the line goes through those that no smaller one beats. Measured on what was held back. The loss of a step, "
        "above, is that of the slices which it trained.</p>"
        f'<figure data-name="slices" style="max-width:52rem">{curve({"slices": rows}, each=each)}</figure>'
        '<div class="scroll" tabindex="0" role="region" aria-label="the slices">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def name(row: Mapping[str, Any]) -> str:
    """`width 86 of 172, depth 3 of 5`."""
    return ", ".join(f"{axis} {said}" for axis, said in row["counts"].items())


def best(rows: Rows, by: str, what: str = "loss") -> list[Mapping[str, Any]]:
    """Those that lose less than every smaller one, the smallest first."""
    found: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row[by], row[what])):
        if not found or row[what] < found[-1][what]:
            found.append(row)
    return found


def curve(series: Mapping[str, Rows], by: str = "bytes", each: str = "token") -> str:
    """Loss against bytes or FLOPs as SVG: every slice a point, and a line through the best of each series."""
    several = len(series) > 1
    wide, high, left, right, bottom, top = 720.0, 340.0, 64.0, 560.0 if several else 708.0, 44.0, 12.0
    rows = [row for some in series.values() for row in some]
    if not rows:
        return ""
    low, up = min(row["loss"] for row in rows), max(row["loss"] for row in rows)
    last = max(row[by] for row in rows)
    unit, one = scale(by, last)

    def x(size: float) -> float:
        return left + 8 + size / last * (right - left - 20)

    def y(loss: float) -> float:
        return high - bottom - 10 - (loss - low) / max(up - low, 1e-9) * (high - bottom - top - 18)

    parts = []
    for tick in whole(low, up, 7):
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in whole(0.0, last / one, 8):
        parts.append(f'<text x="{x(tick * one):.1f}" y="{high - bottom + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{high - bottom}" y2="{high - bottom}"/>')
    what = f" per {each}" if by == "flops" else ""
    parts.append(f'<text x="{(left + right) / 2}" y="{high - 6}" text-anchor="middle">{unit}{what}</text>')
    middle = (high - bottom) / 2
    said = f'transform="rotate(-90 14 {middle})" text-anchor="middle">loss, nats per {each}</text>'
    parts.append(f'<text x="14" y="{middle}" {said}')
    for at, (called, some) in enumerate(series.items()):
        line = " ".join(f"{x(row[by]):.1f},{y(row['loss']):.1f}" for row in best(some, by))
        parts.append(f'<polyline class="r{at} rival" points="{line}"/>')
        for row in some:
            told = escape(f"{called}: {name(row)}; {words.amount(by, row[by])}, {words.nats(row['loss'])} nats")
            where = f'cx="{x(row[by]):.1f}" cy="{y(row["loss"]):.1f}"'
            parts.append(f'<circle class="r{at}" {where} r="4"><title>{told}</title></circle>')
        if several:
            parts.append(f'<circle class="r{at}" cx="{right + 18}" cy="{22 + 20 * at}" r="4"/>')
            parts.append(f'<text x="{right + 28}" y="{26 + 20 * at}">{escape(called)}</text>')
    return svg(wide, high, f"loss against {by}, from {low:.3g} to {up:.3g} nats per {each}", parts, 'class="fits"')
