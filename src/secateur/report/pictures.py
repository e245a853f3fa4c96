"""The pictures of the report, as SVG that stands in the page: bits through the depth, and damage against the budget.

Colours are classes that the page gives a light and a dark dress; whatever a picture shows stands in a table as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from secateur import words
from secateur.report.frontier import Point, in_order

#: how many roles get a colour of their own; what lies outside the blocks shares the last
ROLES = 7
#: columns in the picture at most; above, neighbours are drawn as one
COLUMNS = 1000


@dataclass(frozen=True)
class Row:
    """One unit as the page speaks of it; None where nobody knows. Damage is in nats per token."""

    name: str
    edit: str
    kind: str = ""
    block: int | None = None
    weights: int | None = None
    bits: float | None = None
    bytes: float | None = None
    damage: float | None = None
    error: float | None = None

    @property
    def kept(self) -> bool:
        return self.edit.startswith("keep")

    @property
    def role(self) -> str:
        """What it is in its block: the last word of its name."""
        return self.name.removesuffix(".*").rpartition(".")[2] if self.block is not None else "outside the blocks"


def by_depth(rows: Sequence[Row]) -> list[Row]:
    """From the input to the output: what stands before the blocks, the blocks, what stands behind them."""
    n = len(rows)
    return sorted(rows, key=lambda r: -1 if r.kind == "embedding" else n if r.block is None else r.block)


def roles(rows: Sequence[Row]) -> dict[str, int]:
    """The colour of every role, by its number; roles beyond the last share it."""
    inside = dict.fromkeys(row.role for row in rows if row.block is not None)
    found = {role: min(at, ROLES - 1) for at, role in enumerate(inside)}
    return found | ({"outside the blocks": ROLES} if any(row.block is None for row in rows) else {})


def depth(rows: Sequence[Row], mean: float | None, room: float = 0.0) -> str:
    """Every unit a column, as wide as its weights and as tall as their bits, so that its area is what it takes.

    Units that are kept reach beyond the picture, dashed, so that the others can be told apart. `room`: bits that must
    fit, since other plans are shown in the same picture; the units' places in `rows` stand in `data-u`.
    """
    wide, high, left, right, bottom = 960.0, 230.0, 30.0, 918.0, 26.0
    at = {row.name: u for u, row in enumerate(rows)}
    drawn = _joined([row for row in by_depth(rows) if row.bits is not None])
    if not drawn:
        return ""
    cut = [row.bits for row in drawn if not row.kept and row.bits is not None]
    most = 1.12 * max([*cut, mean or 0.0, room] if cut else [16.0])
    colour = roles(rows)
    blocks = [(key, list(group)) for key, group in groupby(drawn, key=_block)]
    gap = min(8.0, 0.2 * (right - left) / len(blocks))
    per_weight = (right - left - gap * len(blocks)) / sum(row.weights or 1 for row in drawn)

    def y(bits: float) -> float:
        return high - bottom - min(bits / most, 1.0) * (high - bottom - 10)

    def place(row: Row) -> str:
        return f' data-u="{at[row.name]}"' if len(rows) <= COLUMNS else ""

    parts = [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(b):.1f}" y2="{y(b):.1f}"/>'
        f'<text x="{left - 8}" y="{y(b) + 4:.1f}" text-anchor="end">{b}</text>'
        for b in _ticks(most)
    ]
    x, free = left + gap / 2, left
    for key, units in blocks:
        start = x
        for row in units:
            broad = (row.weights or 1) * per_weight
            inner = max(broad - (1.0 if broad > 4 else 0.0), 0.4)
            dress = f"r{colour[row.role]}" + " kept" * row.kept
            top = y(most if row.kept else row.bits or 0.0)
            tall = high - bottom - top
            parts.append(
                f'<rect class="{dress}"{place(row)} x="{x:.1f}" y="{top:.1f}" width="{inner:.1f}" height="{tall:.1f}">'
                f"<title>{escape(told(row))}</title></rect>"
            )
            x += broad
        middle, room = (start + x) / 2, 7.0 * len(key) + 6
        if middle - room / 2 >= free and room <= max(x - start, 22.0) + gap:
            parts.append(f'<text x="{middle:.1f}" y="{high - 8}" text-anchor="middle">{escape(key)}</text>')
            free = middle + room / 2
        x += gap
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{high - bottom}" y2="{high - bottom}"/>')
    if mean:
        parts.append(f'<line class="mean" x1="{left}" x2="{right}" y1="{y(mean):.1f}" y2="{y(mean):.1f}"/>')
        parts.append(f'<text class="said" x="{right + 6}" y="{y(mean) + 4:.1f}">{mean:.3g}</text>')
    span = f", {min(cut):.2f} to {max(cut):.2f} bits per weight" if cut else ""
    label = f"{len(rows)} units from input to output{span}; the table has the same numbers"
    more = f'class="depth" data-ground="{high - bottom:g}" data-top="10" data-most="{most:.4g}"'
    return svg(wide, high, label, parts, more)


def told(row: Row) -> str:
    """A unit in one line."""
    bits = "" if row.bits is None else f", {row.bits:.3g} bits per weight"
    return f"{row.name}: {row.edit}{bits}" + (f", {row.weights:,} weights" if row.weights else "")


def _block(row: Row) -> str:
    return str(row.block) if row.block is not None else {"embedding": "embedding", "head": "head"}.get(row.kind, "")


def _joined(rows: list[Row]) -> list[Row]:
    """Neighbours of one block as one, when there are more units than can be drawn."""
    if len(rows) <= COLUMNS:
        return rows
    out, step = [], math.ceil(len(rows) / COLUMNS)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        weights = sum(row.weights or 1 for row in some)
        bits = sum((row.bits or 0.0) * (row.weights or 1) for row in some) / weights
        first = some[0]
        edit = first.edit if len({row.edit for row in some}) == 1 else "several edits"
        said = f"{edit}, with the {len(some) - 1} units after it"
        out.append(Row(first.name, said, first.kind, first.block, weights, bits))
    return out


def _ticks(most: float) -> list[int]:
    return list(range(0, int(most) + 1, 1 if most <= 6 else 2 if most <= 12 else 4))


def frontier(
    points: Sequence[Point],
    ours: Point | None,
    measured: tuple[float, float] | None,
    unit: str = "nats per token",
    by: str = "bits_per_weight",
) -> str:
    """Damage expected of the best plan at every budget of the resource `by`; ours, and what it was `measured` to be,
    give or take."""
    at = {id(point): i for i, point in enumerate(in_order(points, ours, by))}
    points = [point for point in points if point.damage > 0]
    if len(points) < 2:
        return ""
    wide, high, left, bottom, top = 640.0, 340.0, 84.0, 44.0, 12.0
    here = ours.spent[by] if ours is not None else None
    damages = [point.damage for point in points]
    damages += [ours.damage] if ours is not None and ours.damage > 0 else []
    damages += [measured[0] + measured[1]] if measured is not None and measured[0] + measured[1] > 0 else []
    low, up = math.floor(math.log10(min(damages))), math.ceil(math.log10(max(damages)))
    spends = [*(point.spent[by] for point in points), *([here] if here else [])]
    first, last = min(spends), max(spends)
    axis, one = scale(by, last)

    def x(amount: float) -> float:
        return left + 10 + (amount - first) / max(last - first, 1e-9 * one) * (wide - left - 30)

    def y(damage: float) -> float:
        share = (math.log10(max(damage, 10.0**low)) - low) / max(up - low, 1)
        return high - bottom - share * (high - bottom - top)

    parts = [
        f'<line class="grid" x1="{left}" x2="{wide}" y1="{y(10.0**p):.1f}" y2="{y(10.0**p):.1f}"/>'
        f'<text x="{left - 8}" y="{y(10.0**p) + 4:.1f}" text-anchor="end">{10.0**p:.{max(-p, 0)}f}</text>'
        for p in range(low, up + 1)
    ]
    for tick in whole(first / one, last / one):
        at_x = f"{x(tick * one):.1f}"
        parts.append(f'<text x="{at_x}" y="{high - bottom + 18}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<line class="axis" x1="{at_x}" x2="{at_x}" y1="{high - bottom}" y2="{high - bottom + 4}"/>')
    parts.append(f'<line class="axis" x1="{left}" x2="{wide}" y1="{high - bottom}" y2="{high - bottom}"/>')
    parts.append(f'<text x="{(left + wide) / 2}" y="{high - 6}" text-anchor="middle">{axis}</text>')
    line = " ".join(f"{x(p.spent[by]):.1f},{y(p.damage):.1f}" for p in points)
    parts.append(f'<polyline class="curve" points="{line}"/>')
    for p in points:
        said = f"{words.amount(by, p.spent[by])}: {p.damage:.3g} ± {p.error:.2g} {unit}"
        parts.append(
            f'<circle class="dot" data-at="{at.get(id(p), -1)}" cx="{x(p.spent[by]):.1f}" cy="{y(p.damage):.1f}" r="3">'
            f"<title>{said}</title></circle>"
        )
    if ours is not None:
        parts += _marks(ours, measured, x(ours.spent[by]), y, at.get(id(ours), -1))
    label = "Expected damage falls as the budget grows; the table below it has the numbers"
    return svg(wide, high, label, parts, 'class="fits"')


def _marks(ours: Point, measured: tuple[float, float] | None, x: float, y, at: int) -> Iterator[str]:
    """Our plan as a disc, what was measured as a diamond around it, both with their standard errors."""
    if ours.damage > 0:
        yield _whisker("ours-whisker", x - 2, y(ours.damage - ours.error), y(ours.damage + ours.error))
        disc = f'<circle class="ours" data-at="{at}" cx="{x:.1f}" cy="{y(ours.damage):.1f}" r="5">'
        yield f"{disc}<title>this plan, expected</title></circle>"
    if measured is None or measured[0] + measured[1] <= 0:
        return
    value, error = measured
    yield _whisker("whisker", x + 2, y(value - error), y(value + error))
    if value > 0:
        shape = f"M{x:.1f} {y(value) - 9:.1f}l9 9l-9 9l-9 -9z"
        yield f'<path class="measured" d="{shape}"><title>this plan, measured</title></path>'


def _whisker(dress: str, x: float, low: float, up: float) -> str:
    return f'<line class="{dress}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{up:.1f}"/>'


def whole(first: float, last: float, most: int = 10) -> list[float]:
    """Round numbers between two, at most so many."""
    step = 10.0 ** math.floor(math.log10(max(last - first, 1e-9)) - 1)
    step = next(s for s in (step * by for by in (1, 2.5, 5, 10, 20, 25, 50, 100)) if (last - first) / s <= most)
    return [k * step for k in range(math.ceil(first / step), math.floor(last / step) + 1)]


def scale(resource: str, most: float) -> tuple[str, float]:
    """How an axis of a resource is called, and how many of it make one there."""
    if resource == "bits_per_weight":
        return "bits per weight", 1.0
    if resource == "seconds":
        return "ms", 1e-3
    what = "FLOPs" if resource == "flops" else "B"
    by, one = next((p for p in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if most >= 2 * p[1]), ("", 1.0))
    name = f"{by}{what}" if by or what == "FLOPs" else "bytes"
    return name + {"bytes": ", the whole file", "kv": " of cache per token"}.get(resource, ""), one


def agreement(
    planned: tuple[float, float] | None, measured: tuple[float, float] | None, floor: float | None, each: str = "token"
) -> str:
    """What was expected beside what was measured, on one line of nats per `each`, both with its standard error."""
    if planned is None or measured is None:
        return ""
    wide, high, left, right = 640.0, 118.0, 112.0, 620.0
    ends = [0.0, *(v + s * e for v, e in (planned, measured) for s in (-1, 1)), floor or 0.0]
    low, up = min(ends), 1.06 * max(ends)
    if up <= low:
        return ""

    def x(nats: float) -> float:
        return left + (nats - low) / (up - low) * (right - left)

    step = 10.0 ** math.floor(math.log10(up - low))
    step = next(step * by for by in (0.1, 0.2, 0.5, 1.0, 2.0) if (up - low) / (step * by) <= 6)
    ticks = [k * step for k in range(math.ceil(low / step), math.floor(up / step) + 1)]
    parts = [
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="8" y2="84"/>'
        f'<text x="{x(t):.1f}" y="102" text-anchor="middle">{t:.6g}</text>'
        for t in ticks
    ]
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="84" y2="84"/>')
    if floor is not None and floor > 0:
        said = f"no plan within the budget can be expected below {floor:.5g}"
        parts.append(
            f'<line class="floor" x1="{x(floor):.1f}" x2="{x(floor):.1f}" y1="8" y2="84"><title>{said}</title></line>'
        )
    for name, (value, error), y, dress in (("expected", planned, 28, "ours"), ("measured", measured, 62, "measured")):
        whisker = "ours-whisker" if dress == "ours" else "whisker"
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{name}</text>')
        parts.append(
            f'<line class="{whisker}" x1="{x(value - error):.1f}" x2="{x(value + error):.1f}" y1="{y}" y2="{y}"/>'
        )
        told = f"<title>{name}: {value:.4g} ± {error:.2g} nats per {each}</title>"
        if dress == "ours":
            parts.append(f'<circle class="ours" cx="{x(value):.1f}" cy="{y}" r="6">{told}</circle>')
        else:
            parts.append(f'<path class="measured" d="M{x(value):.1f} {y - 8}l8 8l-8 8l-8 -8z">{told}</path>')
    label = f"expected {planned[0]:.4g}, measured {measured[0]:.4g} nats per {each}"
    return svg(wide, high, label, parts, 'class="fits"')


def rivals(rows: Sequence[Mapping[str, Any]], by: str = "bytes") -> str:
    """KL against bytes on disk, or another resource: a line a contestant, through its budgets, with 95% intervals."""
    wide, high, left, right, bottom, top = 720.0, 380.0, 84.0, 500.0, 44.0, 12.0
    sizes = [row[by] for row in rows]
    edges = [
        edge for row in rows for edge in (row["kl"], row["kl_interval"][1], max(row["kl_interval"][0], row["kl"] / 2))
    ]
    low, up = math.log10(min(edges)), math.log10(max(edges))
    marks = [
        m * 10.0**p for p in range(math.floor(low), math.ceil(up) + 1) for m in ((1, 2, 5) if up - low < 2 else (1,))
    ]
    first, last = min(sizes), max(sizes)
    unit, one = scale(by, last)

    def x(size: float) -> float:
        return left + 14 + (size - first) / max(last - first, 1e-9) * (right - left - 28)

    def y(kl: float) -> float:
        share = (math.log10(max(kl, 10.0**low)) - low) / max(up - low, 1e-9)
        return high - bottom - 8 - share * (high - bottom - top - 8)

    parts = [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(kl):.1f}" y2="{y(kl):.1f}"/>'
        f'<text x="{left - 8}" y="{y(kl) + 4:.1f}" text-anchor="end">{kl:g}</text>'
        for kl in marks
        if low <= math.log10(kl) <= up
    ]
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{high - bottom}" y2="{high - bottom}"/>')
    for size in sorted({first, (first + last) / 2, last}):
        parts.append(f'<text x="{x(size):.1f}" y="{high - bottom + 18}" text-anchor="middle">{size / one:.4g}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{high - 6}" text-anchor="middle">{unit}</text>')
    parts.append(f'<text x="16" y="{(high - bottom) / 2}" transform="rotate(-90 16 {(high - bottom) / 2})" '
                 'text-anchor="middle">KL, nats</text>')  # fmt: skip
    who = [_line(row, by) for row in rows]
    for at, name in enumerate(dict.fromkeys(who)):
        mine = sorted((r for r, its in zip(rows, who, strict=True) if its == name), key=lambda r: r[by])
        dress = f"r{at % 8}"
        line = " ".join(f"{x(r[by]):.1f},{y(r['kl']):.1f}" for r in mine)
        parts.append(f'<polyline class="{dress} rival" points="{line}"/>')
        for r in mine:
            a, b = (y(edge) for edge in r["kl_interval"])
            at_x = f"{x(r[by]):.1f}"
            parts.append(f'<line class="{dress} rival" x1="{at_x}" x2="{at_x}" y1="{a:.1f}" y2="{b:.1f}"/>')
            told = escape(f"{r['contestant']}: {r[by]:,} {by}, KL {r['kl']:.4g}")
            parts.append(
                f'<circle class="{dress}" cx="{at_x}" cy="{y(r["kl"]):.1f}" r="4"><title>{told}</title></circle>'
            )
        parts.append(f'<circle class="{dress}" cx="{right + 22}" cy="{22 + 20 * at}" r="4"/>')
        said = name if len(name) <= 28 else "…" + name[-27:]
        parts.append(f'<text x="{right + 32}" y="{26 + 20 * at}">{escape(said)}</text>')
    return svg(wide, high, f"KL against {by}, a line a contestant", parts, 'class="fits"')


def _line(row: Mapping[str, Any], by: str) -> str:
    """Whose line a row lies on: a tool's settings are one line, but where each of its methods knows every size."""
    if by == "kv" and row.get("tool"):
        return str(row["contestant"]).rpartition("-")[0]
    return str(row.get("tool") or row["contestant"])


def alone(svg: str, style: str) -> str:
    """A picture of the page as a file of its own: with the rules of the page's style that are for pictures, their
    colours written out, since not every program that takes an SVG knows variables."""
    colours = dict(re.findall(r"--([\w-]+): ([^;]+);", style.partition("@media")[0]))
    rules = [line for line in style.splitlines() if re.match(r"svg[ {]|\.r\d", line) and ":hover" not in line]
    dress = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], "\n".join(rules))
    head, rest = svg.split(">", 1)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    said = f' width="{size[1]}" height="{size[2]}"' if size else ""
    head = head.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg"{said}')
    return f"{head}>\n<style>\n{dress}\n</style>{rest}\n"


def svg(wide: float, high: float, label: str, parts: Sequence[str], more: str = "") -> str:
    head = f'<svg {more} viewBox="0 0 {wide:g} {high:g}" role="img" aria-label="{escape(label)}">'
    return f"{head}{''.join(parts)}</svg>"
