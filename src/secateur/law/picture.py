"""A law as a picture: a line through each point that was asked for, along one column, its band, and rows near it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from secateur.law.answering import Answering
from secateur.law.asking import Point
from secateur.law.table import Table
from secateur.maths.fitting import between
from secateur.parts.laws import counted, said
from secateur.report.pictures import svg

#: places along a line
PLACES = 60


@dataclass(frozen=True)
class Line:
    """What a law says along a column with the others as they are; `low` and `high` enclose 95% of the tables drawn."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    rows: tuple[tuple[float, float], ...] = ()


def lines(asked: Answering, points: Sequence[Point], along: str, rows: Table | None) -> list[Line]:
    """One line for each point, as far as the law was fitted and the points reach."""
    ends = [end for end in asked.inside.get(along, ()) if end]
    here = [point[along] for point in points if along in point] + ends
    if not here:
        return []
    x = np.geomspace(min(here) / (1 if len(ends) == 2 else 100), max(here), PLACES)
    others = [{name: value for name, value in point.items() if name != along} for point in points]
    found = []
    for other in (one for at, one in enumerate(others) if one not in others[:at]):
        if {*other, along} < set(asked.law.formula.columns):
            continue  # the law chooses a column itself, at each place another
        at = {**other, along: x}
        low = high = None
        if asked.fit is not None:
            drawn = np.array([asked.law.formula.at(at, values) for values in asked.fit.drawn])
            low, high = np.array([between(column) for column in drawn.T]).T
        y = asked.law.formula.at(at, asked.values)
        found.append(Line(said(other), x, y, low, high, _near(other, along, asked.law.formula.target, rows)))
    return found


def _near(other: Mapping[str, float], along: str, target: str, rows: Table | None) -> tuple[tuple[float, float], ...]:
    """The rows of the table that lie on a line, give or take a tenth."""
    if rows is None:
        return ()
    chosen = [np.abs(np.log(rows.columns[name] / value)) < 0.1 for name, value in other.items()]
    on = np.logical_and.reduce([np.ones(len(rows), dtype=bool), *chosen])
    return tuple(zip(rows.columns[along][on].tolist(), rows.columns[target][on].tolist(), strict=True))


def drawn(found: Sequence[Line], along: str, target: str, known: tuple[float | None, float | None]) -> str:
    """The lines as SVG, both axes by powers of ten; what the law was fitted on lies on the shaded ground."""
    wide, high, left, right, bottom, top = 760.0, 380.0, 70.0, 560.0, 44.0, 12.0
    first, last = found[0].x[0], found[0].x[-1]
    seen = [v for one in found for v in (*one.y, *(one.low if one.low is not None else ()), *(r[1] for r in one.rows))]
    seen += [v for one in found for v in (one.high if one.high is not None else ())]
    good = [v for v in seen if math.isfinite(v) and v > 0]
    least, most = max(min(good), max(good) / 1e5), max(good)
    span = max(math.log(most / least), 1e-9)

    def x(value: float) -> float:
        return left + (right - left) * math.log(value / first) / max(math.log(last / first), 1e-9)

    def y(value: float) -> float:
        share = math.log(min(max(value, least), most) / least) / span if value > 0 else 0.0
        return high - bottom - 8 - share * (high - bottom - top - 16)

    a, b = (x(end) if end and first <= end <= last else edge for end, edge in zip(known, (left, right), strict=True))
    parts = [f'<rect class="known" x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="{high - bottom - top}"/>']
    for tick in _ticks(least, most):
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(first, last):
        parts.append(f'<text x="{x(tick):.1f}" y="{high - bottom + 18}" text-anchor="middle">{counted(tick)}</text>')
        parts.append(
            f'<line class="axis" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{high - bottom}" y2="{high - bottom + 4}"/>'
        )
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{high - bottom}" y2="{high - bottom}"/>')
    parts.append(f'<text x="{(left + right) / 2}" y="{high - 6}" text-anchor="middle">{escape(along)}</text>')
    parts.append(f'<text x="14" y="{(high - bottom) / 2}" transform="rotate(-90 14 {(high - bottom) / 2})" '
                 f'text-anchor="middle">{escape(target)}</text>')  # fmt: skip
    for at, one in enumerate(found):
        dress = f"r{at % 8}"
        if one.low is not None and one.high is not None:
            edge = [*zip(one.x, one.low, strict=True), *reversed([*zip(one.x, one.high, strict=True)])]
            parts.append(f'<polygon class="{dress} band" points="{_path(edge, x, y)}"/>')
        parts.append(f'<polyline class="{dress} rival" points="{_path(zip(one.x, one.y, strict=True), x, y)}"/>')
        parts += [
            f'<circle class="{dress}" cx="{x(r):.1f}" cy="{y(v):.1f}" r="3.5"/>'
            for r, v in one.rows
            if first <= r <= last
        ]
        parts.append(f'<circle class="{dress}" cx="{right + 18}" cy="{22 + 20 * at}" r="4"/>')
        parts.append(f'<text x="{right + 28}" y="{26 + 20 * at}">{escape(one.name or "the law")}</text>')
    return svg(wide, high, f"{target} against {along}, a line a point", parts, 'class="fits"')


def _path(points, x, y) -> str:
    return " ".join(f"{x(float(a)):.1f},{y(float(b)):.1f}" for a, b in points if math.isfinite(b))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a log scale, three to eight of them or so."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(10, 100) / 10)):
        found = [float(f"{s * 10.0**p:.3g}") for p in powers for s in steps if low <= s * 10.0**p <= high]
        if len(found) >= 3:
            break
    return found[:: max(1, len(found) // 8)]


def write(file: Path, picture: str) -> None:
    """The picture as a file of its own, whole or not at all; colours as the pages have them in the light."""
    from secateur.export._write import write_text
    from secateur.report import pictures

    style = (Path(pictures.__file__).with_name("page.css")).read_text(encoding="utf-8")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, pictures.alone(picture, style))
