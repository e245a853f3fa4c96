"""The pictures of the report, as SVG that stands in the page: bits through the depth, and damage against the budget.

Colours are classes that the page gives a light and a dark dress; whatever a picture shows stands in a table as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

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
        return self.name.rpartition(".")[2] if self.block is not None else "outside the blocks"


@dataclass(frozen=True)
class Point:
    """One budget: what its best plan spends and is expected to damage."""

    bits: float
    bytes: float | None
    damage: float
    error: float
    floor: float


def by_depth(rows: Sequence[Row]) -> list[Row]:
    """From the input to the output: what stands before the blocks, the blocks, what stands behind them."""
    n = len(rows)
    return sorted(rows, key=lambda r: -1 if r.kind == "embedding" else n if r.block is None else r.block)


def roles(rows: Sequence[Row]) -> dict[str, int]:
    """The colour of every role, by its number; roles beyond the last share it."""
    inside = dict.fromkeys(row.role for row in rows if row.block is not None)
    found = {role: min(at, ROLES - 1) for at, role in enumerate(inside)}
    return found | ({"outside the blocks": ROLES} if any(row.block is None for row in rows) else {})


def depth(rows: Sequence[Row], mean: float | None) -> str:
    """Every unit a column, as wide as its weights and as tall as their bits, so that its area is what it takes.

    Units that are kept reach beyond the picture, dashed, so that the others can be told apart.
    """
    wide, high, left, right, bottom = 960.0, 230.0, 30.0, 918.0, 26.0
    drawn = _joined([row for row in by_depth(rows) if row.bits is not None])
    if not drawn:
        return ""
    cut = [row.bits for row in drawn if not row.kept and row.bits is not None]
    most = 1.12 * max([*cut, mean or 0.0] if cut else [16.0])
    colour = roles(rows)
    blocks = [(key, list(group)) for key, group in groupby(drawn, key=_block)]
    gap = min(8.0, 0.2 * (right - left) / len(blocks))
    per_weight = (right - left - gap * len(blocks)) / sum(row.weights or 1 for row in drawn)

    def y(bits: float) -> float:
        return high - bottom - min(bits / most, 1.0) * (high - bottom - 10)

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
            dress = "kept" if row.kept else f"r{colour[row.role]}"
            top = y(most if row.kept else row.bits or 0.0)
            tall = high - bottom - top
            parts.append(
                f'<rect class="{dress}" x="{x:.1f}" y="{top:.1f}" width="{inner:.1f}" height="{tall:.1f}">'
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
    return _svg(wide, high, f"{len(rows)} units from input to output{span}; the table has the same numbers", parts)


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
        words = f"{edit}, with the {len(some) - 1} units after it"
        out.append(Row(first.name, words, first.kind, first.block, weights, bits))
    return out


def _ticks(most: float) -> list[int]:
    return list(range(0, int(most) + 1, 1 if most <= 6 else 2 if most <= 12 else 4))


def frontier(
    points: Sequence[Point], ours: Point | None, measured: tuple[float, float] | None, unit: str = "nats per token"
) -> str:
    """Damage expected of the best plan at every budget; ours, and what it was `measured` to be, give or take."""
    points = [point for point in points if point.damage > 0]
    if len(points) < 2:
        return ""
    wide, high, left, bottom, top = 960.0, 360.0, 72.0, 44.0, 12.0
    here = ours.bits if ours is not None else None
    damages = [point.damage for point in points]
    damages += [ours.damage] if ours is not None and ours.damage > 0 else []
    damages += [measured[0] + measured[1]] if measured is not None and measured[0] + measured[1] > 0 else []
    low, up = math.floor(math.log10(min(damages))), math.ceil(math.log10(max(damages)))
    spends = [*(point.bits for point in points), *([here] if here else [])]
    first, last = min(spends), max(spends)

    def x(bits: float) -> float:
        return left + 10 + (bits - first) / max(last - first, 1e-9) * (wide - left - 30)

    def y(damage: float) -> float:
        share = (math.log10(max(damage, 10.0**low)) - low) / max(up - low, 1)
        return high - bottom - share * (high - bottom - top)

    parts = [
        f'<line class="grid" x1="{left}" x2="{wide}" y1="{y(10.0**p):.1f}" y2="{y(10.0**p):.1f}"/>'
        f'<text x="{left - 8}" y="{y(10.0**p) + 4:.1f}" text-anchor="end">{10.0**p:.{max(-p, 0)}f}</text>'
        for p in range(low, up + 1)
    ]
    for bits in _whole(first, last):
        parts.append(f'<text x="{x(bits):.1f}" y="{high - bottom + 18}" text-anchor="middle">{bits:g}</text>')
        parts.append(
            f'<line class="axis" x1="{x(bits):.1f}" x2="{x(bits):.1f}" y1="{high - bottom}" y2="{high - bottom + 4}"/>'
        )
    parts.append(f'<line class="axis" x1="{left}" x2="{wide}" y1="{high - bottom}" y2="{high - bottom}"/>')
    parts.append(f'<text x="{(left + wide) / 2}" y="{high - 6}" text-anchor="middle">bits per weight</text>')
    line = " ".join(f"{x(p.bits):.1f},{y(p.damage):.1f}" for p in points)
    parts.append(f'<polyline class="curve" points="{line}"/>')
    for p in points:
        words = f"{p.bits:.3f} bits per weight: {p.damage:.3g} ± {p.error:.2g} {unit}"
        parts.append(
            f'<circle class="dot" cx="{x(p.bits):.1f}" cy="{y(p.damage):.1f}" r="3"><title>{words}</title></circle>'
        )
    if ours is not None:
        parts += _marks(ours, measured, x(ours.bits), y)
    return _svg(wide, high, "Expected damage falls as the budget grows; the table below it has the numbers", parts)


def _marks(ours: Point, measured: tuple[float, float] | None, x: float, y) -> Iterator[str]:
    """Our plan as a disc, what was measured as a diamond around it, both with their standard errors."""
    if ours.damage > 0:
        yield _whisker("ours-whisker", x - 2, y(ours.damage - ours.error), y(ours.damage + ours.error))
        disc = f'<circle class="ours" cx="{x:.1f}" cy="{y(ours.damage):.1f}" r="5">'
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


def _whole(first: float, last: float) -> list[float]:
    """Round numbers between two, not too many."""
    step = next(s for s in (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if (last - first) / s <= 10 or s == 8.0)
    return [k * step for k in range(math.ceil(first / step), math.floor(last / step) + 1)]


def _svg(wide: float, high: float, label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {wide:g} {high:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
