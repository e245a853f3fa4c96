"""The page of a bench: who is best at which bytes, by how much and how surely, and how to do it again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur import words
from secateur.report import pictures
from secateur.report.page import cited, copied, whole

if TYPE_CHECKING:
    from secateur.catalogue import Method


def draw(result: Mapping[str, Any]) -> str:
    """The whole page, as HTML, of what `bench` gives; of a run that broke off, what is there."""
    rows, first = result["rows"], str(result["reference"])
    title = f"{Path(str(result['model'])).name}: methods at the same bytes"
    parts = [f"<header><h1>{escape(title)}</h1>", _lead(result), "</header>"]
    each = result.get("each", "token")
    drawn = figures(result)
    parts += [
        _frontier(drawn["frontier"], each),
        _against(drawn["differences"], first),
        _table(rows, first, each),
        _missing(rows),
    ]
    parts += [_again(result), cited(_papers(rows)), _others(rows), _footer(first)]
    return whole(title, parts, {})


def _lead(result: Mapping[str, Any]) -> str:
    from secateur.bench import winners

    on = result["text"] or f"what {result['data']} keeps back from calibration"
    on += f", behind the first {result['prompt']:.0%} of every window" if result.get("prompt") else ""
    best = winners(result["rows"])
    said = words.budgets(row["budget"] for row in result["rows"])
    won = "".join(f"<li>{escape(said[budget])}: <strong>{escape(name)}</strong></li>" for budget, name in best.items())
    broken = "<strong>This run is not finished.</strong> The same command goes on from where it stopped."
    return (
        f"<p class=banner>{broken}</p>" * (not result.get("finished", True))
        + f"<p class=lead>{escape(str(result['model']))}, measured on {escape(str(on))}. "
        + ("The least KL to the uncut model:</p><ul>" + won + "</ul>" if won else "Nothing is measured yet.</p>")
    )


def _frontier(drawn: str, each: str) -> str:
    if not drawn:
        return ""
    return (
        f"<h2>KL against size</h2><p class=soft>How far the predictions are from the uncut model's, in nats per {each}"
        ", against the bytes of the whole file, FLOPs, or the cache. Lower and further left is better; lines up and "
        "down are 95% intervals."
        f'</p><figure data-name="frontier" style="max-width:52rem">{drawn}</figure>'
    )


def _against(drawn: str, first: str) -> str:
    if not drawn:
        return ""
    return (
        f"<h2>Set against {escape(first)} at the same bytes</h2><p class=soft>What each has more of KL, window by "
        "window on the same text: right of the line is worse. Bars are 95% bootstrap intervals of the mean difference; "
        f'one that crosses the line tells nothing.</p><figure data-name="differences" style="max-width:52rem">'
        f"{drawn}</figure>"
    )


def figures(result: Mapping[str, Any]) -> dict[str, str]:
    """The figures of the page by their names, as SVG; empty where there is nothing to draw."""
    known = [row for row in result["rows"] if row["kl"] is not None and row["kl"] > 0 and row["bytes"]]
    asked = " ".join(row["budget"] for row in known)
    capped = [one for one in ("flops", "kv") if one in asked and all(row.get(one) for row in known)]
    drawn = pictures.rivals(known, (*capped, "bytes")[0]) if known else ""
    return {"frontier": drawn, "differences": differences(result["rows"], str(result["reference"]))}


def differences(rows: Sequence[Mapping[str, Any]], first: str) -> str:
    """Two lines a row: its name, and below it how much more KL than the first contestant's at the same budget.

    The scale is straight near zero and logarithmic far from it, so that a tenth and a thousandth are both seen.
    """
    rows = [row for row in rows if row.get("kl_more") is not None]
    if not rows:
        return ""
    wide, left, right, each, top = 720.0, 8.0, 712.0, 46.0, 8.0
    high = top + each * len(rows) + 46
    ends = [abs(edge) for row in rows for edge in (row["kl_more"], *row["kl_more_interval"])]
    bend = max(min(abs(row["kl_more"]) for row in rows), max(ends) / 1e4, 1e-9)
    edges = [edge for row in rows for edge in row["kl_more_interval"]]
    low, up = (_bent(edge, bend) for edge in (min(0.0, *edges), max(0.0, *edges)))

    def x(value: float) -> float:
        return left + 8 + (_bent(value, bend) - low) / max(up - low, 1e-9) * (right - left - 16)

    powers = range(math.floor(math.log10(bend)), math.ceil(math.log10(max(ends))) + 1)
    ticks = [sign * 10.0**p for p in powers for sign in (-1, 1) if low <= _bent(sign * 10.0**p, bend) <= up]
    floor, parts, budgets = top + each * len(rows), [], words.budgets(row["budget"] for row in rows)
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{floor}"/>'
            f'<text x="{x(tick):.1f}" y="{floor + 16}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(f'<line class="axis" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top}" y2="{floor}"/>')
    parts.append(f'<text x="{x(0):.1f}" y="{floor + 16}" text-anchor="middle">0</text>')
    under = f"more KL than {escape(first)}, nats"
    parts.append(f'<text x="{(left + right) / 2}" y="{floor + 36}" text-anchor="middle">{under}</text>')
    for at, row in enumerate(rows):
        y = top + each * (at + 0.72)
        dress = "ours" if row["kl_more_interval"][0] > 0 else "dot"
        name = f"{row['contestant']}, {budgets[row['budget']]}"
        a, b = row["kl_more_interval"]
        said = f"{name}: {row['kl_more']:+.4g} nats, 95% between {a:.4g} and {b:.4g}"
        parts.append(
            f'<text x="{left}" y="{y - 13:.1f}">{escape(name if len(name) <= 64 else "…" + name[-63:])}</text>'
        )
        parts.append(f'<line class="whisker" x1="{x(a):.1f}" x2="{x(b):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<circle class="{dress}" cx="{x(row["kl_more"]):.1f}" cy="{y}" r="5">'
            f"<title>{escape(said)}</title></circle>"
        )
    label = f"how much more KL each has than {first} at the same bytes; the table has the numbers"
    return pictures.svg(wide, high, label, parts, 'class="fits"')


def _bent(value: float, bend: float) -> float:
    """Straight up to `bend`, logarithmic beyond."""
    return math.copysign(math.log10(1 + abs(value) / bend), value)


def _table(rows: Sequence[Mapping[str, Any]], first: str, each: str) -> str:
    if not rows:
        return ""
    heads = {"budget": "w", "contestant": "w", "bytes": "", "bits per weight": "", "KL": "", "95% interval": ""}
    heads |= {f"more than {first}": "", "its 95% interval": "", "rise of the loss": ""}
    heads |= {"same first choice": "", "took": ""}
    head = "".join(f'<th scope="col"{f" class={d}" * bool(d)}>{escape(name)}</th>' for name, d in heads.items())
    said = words.budgets(row["budget"] for row in rows)
    body = "".join(_line(row, said[row["budget"]]) for row in rows if row["kl"] is not None)
    return (
        f"<h2>All figures</h2><p class=soft>KL, its difference and the rise of the loss in nats per {each}. A column's "
        'name sorts by it.</p><div class="scroll tall" tabindex="0" role="region" aria-label="all figures">'
        f'<table class="sorts"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _line(row: Mapping[str, Any], budget: str) -> str:
    cells = [(row["bytes"], f"{row['bytes']:,}"), (row["bits_per_weight"], f"{row['bits_per_weight']:.3f}")]
    cells += [(row["kl"], words.nats(row["kl"])), (None, _interval(row["kl_interval"]))]
    cells += [(row["kl_more"], words.nats(row["kl_more"])), (None, _interval(row["kl_more_interval"]))]
    cells += [(row["rise"], words.nats(row["rise"])), (row["agreement"], f"{row['agreement']:.1%}")]
    cells += [(row["seconds"], words.seconds(row["seconds"]) if row["seconds"] else "")]
    drawn = "".join(f"<td{f' data-v={v:.9g}' if v is not None else ''}>{escape(said)}</td>" for v, said in cells)
    return f"<tr><td>{escape(budget)}</td><td class=w>{escape(row['contestant'])}</td>{drawn}</tr>"


def _interval(ends: Sequence[float] | None) -> str:
    return f"{words.nats(ends[0])} to {words.nats(ends[1])}" if ends else ""


def _missing(rows: Sequence[Mapping[str, Any]]) -> str:
    """Those that gave no figures, and what the reader must know of those that did."""
    none = [row for row in rows if row["kl"] is None]
    noted = [row for row in rows if row["kl"] is not None and row["note"]]
    told = "".join(f"<dt>{escape(_name(row))}</dt><dd>{escape(str(row['note']))}</dd>" for row in none + noted)
    return f"<h2>What to know of some</h2><dl>{told}</dl>" if told else ""


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['contestant']} at {row['asked']}" if row["asked"] else str(row["contestant"])


def _again(result: Mapping[str, Any]) -> str:
    said = result.get("again")
    return f"<h2>Do it again</h2>{copied(said)}" if said else ""


def _papers(rows: Sequence[Mapping[str, Any]]) -> list[Method]:
    """The methods that the contestants name, by themselves or by what they stand for."""
    from secateur.again import stands_on
    from secateur.catalogue import methods

    named = {row["allocate"] for row in rows}
    meant = [{key: row[key] for key in ("allocate", "round", "damage")} for row in rows if row["round"]]
    return [one for one in methods() if one.name in named or any(stands_on(chosen, one) for chosen in meant)]


def _others(rows: Sequence[Mapping[str, Any]]) -> str:
    """Tools of others that took part, each in its own words, with the version that ran."""
    from secateur.bench.rivals import every

    took = {row["tool"]: row["version"] for row in rows if row["tool"]}
    those = ((one, took[one.name]) for one in every({}) if one.name in took)
    told = [f"<li>{escape(one.sentence)}{f' Version {escape(what)}.' if what else ''}</li>" for one, what in those]
    return f'<h2>Tools of others</h2><ul class="papers">{"".join(told)}</ul>' if told else ""


def _footer(first: str) -> str:
    from secateur import __version__

    return (
        "<footer><p>Everybody is calibrated on the same windows and measured by the same lines on windows that nobody "
        "has seen; a file counts with all its bytes. A rival takes its largest setting that fits the budget, and what "
        f"its file takes is a budget that {escape(first)} meets. KL says how far the predictions are from the uncut "
        f"model's, whether right or wrong.</p><p>Secateur {escape(__version__)}. The same numbers for scripts: "
        "<code>bench.json</code>.</p></footer>"
    )
