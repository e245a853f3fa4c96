"""The page's tables: where the bytes went, and every unit with what it got. The script sorts and searches them."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from secateur.report import pictures
from secateur.report.pictures import Row

if TYPE_CHECKING:
    from secateur.report import Run

#: how many units the table lists at most
LISTED = 2000


def went(run: Run) -> str:
    """Where the bytes went: by what the units do in their blocks."""
    rows = [row for row in run.rows if row.bytes is not None and row.weights]
    if not rows:
        return ""
    roles: dict[str, list[Row]] = {}
    for row in pictures.by_depth(rows):
        roles.setdefault(row.role if row.block is not None else row.name, []).append(row)
    rest = float(run.priced.fixed.get("bytes", 0.0)) if run.priced else 0.0
    total = sum(row.bytes or 0.0 for row in rows) + rest
    hurt = sum(row.damage or 0.0 for row in rows) or 1.0
    lines = [
        _line(
            name,
            len(some),
            sum(row.weights or 0 for row in some),
            sum(row.bytes or 0.0 for row in some),
            total,
            sum((row.bits or 0.0) * (row.weights or 0) for row in some) / sum(row.weights or 0 for row in some),
            sum(row.damage or 0.0 for row in some) / hurt,
        )
        for name, some in sorted(roles.items(), key=lambda pair: -sum(row.bytes or 0.0 for row in pair[1]))
    ]
    lines += [_line("what no edit touches, and the header", None, None, rest, total, None, None)] if rest else []
    head = "".join(
        f'<th scope="col"{dress}>{name}</th>'
        for name, dress in (
            ("what", ' class="w"'),
            ("units", ""),
            ("weights", ""),
            ("bytes", ""),
            ("of the file", ""),
            ("bits per weight", ""),
            ("of the damage", ""),
        )
    )
    return (
        '<h2>Where the bytes went</h2><div class="scroll" tabindex="0" role="region" aria-label="where bytes went">'
        f'<table class="sorts"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody><tfoot><tr><td>all</td>'
        f"<td>{len(rows):,}</td><td>{sum(row.weights or 0 for row in rows):,}</td><td>{total:,.0f}</td>"
        "<td></td><td></td><td></td></tr></tfoot></table></div>"
    )


def _line(
    name: str,
    units: int | None,
    weights: int | None,
    amount: float,
    total: float,
    bits: float | None,
    hurt: float | None,
) -> str:
    def share(value: float | None) -> str:
        if value is None:
            return "<td></td>"
        return f'<td class="share" data-v="{value:.6f}">{value:.1%}<i style="width:{value * 70:.1f}%"></i></td>'

    return (
        f"<tr><td>{escape(name)}</td>{_cell(units, ',')}{_cell(weights, ',')}{_cell(amount, ',.0f')}"
        f"{share(amount / total)}{_cell(bits, '.3f')}{share(hurt)}</tr>"
    )


def units(run: Run) -> str:
    """All units and what they got; a few lines of script sort it."""
    at = {row.name: u for u, row in enumerate(run.rows)}
    rows, more = pictures.by_depth(run.rows), ""
    if not rows:
        return ""
    if len(rows) > LISTED:
        rows = sorted(rows, key=lambda row: -(row.damage or 0.0))[:LISTED]
        more = f" These are the {LISTED:,} of {len(run.rows):,} that are expected to damage most."
    names = {"unit": "w", "kind": "w", "block": "", "weights": "", "bits": "", "bytes": "", "damage": "", "edit": "w"}
    head = "".join(f'<th scope="col"{f" class={dress}" * bool(dress)}>{name}</th>' for name, dress in names.items())
    body = "".join(_unit(row, at[row.name]) for row in rows)
    return (
        "<h2>Unit by unit</h2><p class=soft>Damage is each unit's share of what was expected of the plan, in nats per "
        f'{run.each}.{more} A column\'s name sorts by it.<span id="whose"></span></p>'
        '<div class="find live"><label for="find">find</label><input type="search" id="find" '
        'placeholder="down_proj bits=2"><span class="soft" id="found" role="status"></span></div>'
        '<div class="scroll tall" tabindex="0" role="region" aria-label="unit by unit">'
        f'<table class="sorts" id="units"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _unit(row: Row, at: int) -> str:
    return (
        f'<tr data-u="{at}"><td>{escape(row.name)}</td><td class=w>{escape(row.kind)}</td>{_cell(row.block, "")}'
        f"{_cell(row.weights, ',')}{_cell(row.bits, '.3f', 'bits')}{_cell(row.bytes, ',.0f', 'bytes')}"
        f'{_cell(row.damage, ".6f", "damage")}<td class="w wraps"><code>{escape(row.edit)}</code></td></tr>'
    )


def _cell(value: float | None, form: str, name: str = "") -> str:
    named = f' data-c="{name}"' * bool(name)
    if value is None or not math.isfinite(value):
        return f"<td{named}></td>"
    return f'<td{named} data-v="{value:.6g}">{value:{form}}</td>'
