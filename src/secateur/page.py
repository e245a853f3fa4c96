"""The page of the report: what was asked and what came out, its pictures, every unit, and how to do it again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from secateur import pictures, words
from secateur.pictures import Point, Row
from secateur.types import BudgetError

if TYPE_CHECKING:
    from secateur.report import Run
    from secateur.types import Menu

#: how many budgets the curve is planned for, and how many units the table lists at most
BUDGETS, LISTED = 15, 2000


def draw(run: Run) -> str:
    """The whole page, as HTML."""
    name = Path(str(run.result.get("model") or run.about.get("model") or "")).name or "a model"
    title = f"{name}, cut to {run.asked}" if run.asked else f"{name}, cut"
    parts = [f"<h1>{escape(title)}</h1>", _lead(run), _tiles(run), _facts(run)]
    parts += [_depth(run), _frontier(run), _units(run), _left_alone(run), _again(run), _footer(run)]
    body = "\n".join(part for part in parts if part)
    return Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8")).substitute(
        title=escape(title), body=body
    )


def _lead(run: Run) -> str:
    """How it went, in words."""
    result = run.result
    if not result:
        what = "What it planned is below." if run.plan else "It has not come to a plan."
        said = "<strong>This run is not finished.</strong>"
        return f'<p class="banner">{said} {what} The same command goes on from where it stopped.</p>'
    sentences = [f"{escape(str(result.get('model', '')))} &rarr; {escape(str(run.out))}."]
    export = result.get("export") or {}
    if export:
        files = ", ".join(export.get("files") or ())
        sentences.append(f"{escape(export['format'])} ({escape(files)}), {escape(words.loaded(export))}.")
    return f'<p class="lead">{" ".join(sentences)}</p>'


def _tiles(run: Run) -> str:
    """The figures that one looks for first: what it is, the number, what to hold it against."""
    result, tiles = run.result, []
    for resource, value in sorted(run.spent.items(), key=lambda pair: pair[0] not in run.caps):
        cap = run.caps.get(resource)
        beside = f"of {words.number(resource, cap)} asked for, {value / cap:.1%}" if cap else ""
        if resource == "bytes" and (uncut := _uncut(run)):
            beside = f"{beside}; " * bool(beside) + f"{uncut / value:.1f} times smaller than {words.size(uncut)}"
        tiles.append((words.called(resource), words.number(resource, value), beside))
    if run.planned:
        tiles.append(("damage expected", _give_or_take(*run.planned), "nats per token, before anything was cut"))
    if run.measured:
        ratio = (
            f"; {run.measured[0] / run.planned[0]:.2f} of what was expected" if run.planned and run.planned[0] else ""
        )
        tiles.append(("damage measured", _give_or_take(*run.measured), f"nats per token{ratio}"))
    if result:
        losses = f"{words.nats(result['loss_before'])} &rarr; {words.nats(result['loss_after'])}"
        tiles.append(("loss, held-back text", losses, "nats per token"))
    if result.get("kl") is not None:
        same = f"; the same first choice {result['agreement']:.1%} of the time" if "agreement" in result else ""
        tiles.append(("KL to the uncut", _give_or_take(result["kl"], result.get("kl_error")), f"nats per token{same}"))
    if result.get("coverage") is not None:
        tiles.append(("coverage", f"{result['coverage']:.1%}", "of the parameter bytes were cut"))
    if result.get("seconds"):
        memory = result.get("peak_rss_bytes")
        tiles.append(
            ("took", words.seconds(result["seconds"]), f"{words.size(memory)} of memory at most" if memory else "")
        )
    drawn = "".join(f"<li><span>{a}</span><strong>{b}</strong><small>{c}</small></li>" for a, b, c in tiles)
    return f'<ul class="tiles">{drawn}</ul>' if tiles else ""


def _give_or_take(value: float, error: float | None) -> str:
    return words.nats(value) + (f" <em>± {words.nats(error)}</em>" if error is not None else "")


def _uncut(run: Run) -> float | None:
    """Bytes of the same file with every unit kept, where the menu knows."""
    import numpy as np

    from secateur.parts.edits import text

    at = [e for e, edit in enumerate(run.menu.edits) if text(edit) == "keep()"] if run.menu else []
    if not run.menu or not at or "bytes" not in run.menu.cost:
        return None
    total = float(run.menu.cost["bytes"][:, at[0]].sum()) + run.menu.fixed.get("bytes", 0.0)
    return total if np.isfinite(total) else None


def _facts(run: Run) -> str:
    result, about, facts = run.result, run.about, {}
    floor = result.get("damage_floor", run.plan.bound if run.plan else None)
    if run.planned and floor is not None and math.isfinite(floor):
        gap = run.planned[0] / floor - 1 if floor > 0 else 0.0
        near = "proven to be the best there is" if gap < 5e-5 else f"at most {gap:.2%} above the best there is"
        facts["the plan is"] = f"{near}: no plan within the budget stays below {floor:.5g} nats per token"
    if result.get("bad_rows"):
        bad = ", ".join(f"{one['unit']} ({len(one['rows'])})" for one in result["bad_rows"])
        facts["bad rows"] = f"hold NaN or infinity and are zeros in the file: {bad}"
    if about.get("data"):
        facts["calibrated on"] = f"{about.get('samples')} stretches of {about['data']}, seed {about.get('seed')}"
    if result.get("resumed"):
        facts["resumed"] = "earlier work was taken up"
    return _list(facts)


def _list(facts: Mapping[str, str]) -> str:
    drawn = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{drawn}</dl>" if facts else ""


def _depth(run: Run) -> str:
    drawn = pictures.depth(run.rows, run.spent.get("bits_per_weight"))
    if not drawn:
        return ""
    keys = "".join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true"><rect class="r{at}" width="14" height="14"/></svg>'
        f"{escape(role)}</li>"
        for role, at in pictures.roles([row for row in run.rows if not row.kept]).items()
    )
    kept = (
        " Dashed columns were left as they were, and reach beyond the picture."
        if any(row.kept for row in run.rows)
        else ""
    )
    return (
        "<h2>Bits of every unit, from the input to the output</h2>"
        "<p class=soft>A column is as wide as the unit has weights and as tall as the bits of one weight: its area is "
        f"what it takes in the file. The line across is the mean.{kept}</p><ul class=key>{keys}</ul>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="bits of every unit">{drawn}</div>'
    )


def curve(menu: Menu) -> list[Point]:
    """The best plan at budgets from the cheapest to the dearest that still costs something, evenly in ratio."""
    import numpy as np

    from secateur.cut import plan
    from secateur.parts.allocate import spent

    if "payload" not in menu.cost:
        return []
    offered = np.isfinite(menu.damage) & np.isfinite(menu.cost["payload"])
    least = np.where(offered, menu.cost["payload"], np.inf).argmin(1)
    most = np.where(offered & (menu.damage > 0), menu.cost["payload"], -np.inf).argmax(1)
    low, high = (spent(menu, np.asarray(edits))["bits_per_weight"] for edits in (least, most))
    found = []
    for bits in np.geomspace(low * (1 + 1e-9), max(high, low), BUDGETS):
        try:
            (one,) = plan(menu, [f"{bits:.9f} bits/weight"])
        except BudgetError:  # rounded to below the cheapest plan
            continue
        spends = one.spent
        found.append(Point(spends["bits_per_weight"], spends.get("bytes"), one.damage, one.error, one.bound))
    return list({point.bits: point for point in found}.values())


def _frontier(run: Run) -> str:
    points = curve(run.menu) if run.menu else []
    bits = run.spent.get("bits_per_weight")
    ours = None
    if run.planned and bits:
        ours = Point(bits, run.spent.get("bytes"), *run.planned, run.planned[0])
    drawn = pictures.frontier(points, ours, run.measured)
    if not drawn:
        return ""
    ring = '<svg viewBox="0 0 14 14" aria-hidden="true">'
    keys = f"<li>{ring}<circle class=dot cx=7 cy=7 r=3 /></svg>the best plan at other budgets</li>"
    keys += f"<li>{ring}<circle class=ours cx=7 cy=7 r=5.5 /></svg>this plan, expected</li>" if ours else ""
    if run.measured:
        beside = "" if run.measured[0] > 0 else ": below zero, so not in the picture"
        keys += f'<li>{ring}<path class=measured d="M7 2l5 5l-5 5l-5 -5z"/></svg>this plan, measured{beside}</li>'
    listed = "".join(
        f"<tr><td>{p.bits:.3f}</td><td>{'' if p.bytes is None else f'{p.bytes:,.0f}'}</td>"
        f"<td>{p.damage:.3g} ± {p.error:.2g}</td><td>{p.floor:.3g}</td></tr>"
        for p in points
    )
    head = "<tr><th>bits per weight</th><th>bytes</th><th>damage expected</th><th>proven floor</th></tr>"
    return (
        "<h2>What other budgets would cost</h2><p class=soft>The rise of the loss in nats per token, as the survey "
        "expects it; lines are standard errors. Each was planned in a blink: <code>secateur plan</code>.</p>"
        f'<ul class=key>{keys}</ul><div class="scroll" tabindex="0" role="region" aria-label="damage and budget">'
        f"{drawn}</div><details><summary>the same as a table</summary><table><thead>{head}</thead>"
        f"<tbody>{listed}</tbody></table></details>"
    )


def _units(run: Run) -> str:
    """All units and what they got; a few lines of script sort it."""
    rows, more = pictures.by_depth(run.rows), ""
    if not rows:
        return ""
    if len(rows) > LISTED:
        rows = sorted(rows, key=lambda row: -(row.damage or 0.0))[:LISTED]
        more = f" These are the {LISTED:,} of {len(run.rows):,} that are expected to damage most."
    names = {"unit": "w", "kind": "w", "block": "", "weights": "", "bits": "", "bytes": "", "damage": "", "edit": "w"}
    head = "".join(f'<th scope="col"{f" class={dress}" * bool(dress)}>{name}</th>' for name, dress in names.items())
    body = "".join(_unit(row) for row in rows)
    return (
        "<h2>Unit by unit</h2><p class=soft>Damage is each unit's share of what was expected of the plan, in nats per "
        f"token.{more} A column's name sorts by it.</p>"
        '<div class="scroll tall" tabindex="0" role="region" aria-label="unit by unit">'
        f'<table class="sorts"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _unit(row: Row) -> str:
    def cell(value: float | None, form: str) -> str:
        known = value is not None and math.isfinite(value)
        return f'<td data-v="{value:.6g}">{value:{form}}</td>' if known else "<td></td>"

    return (
        f"<tr><td>{escape(row.name)}</td><td class=w>{escape(row.kind)}</td>{cell(row.block, '')}"
        f"{cell(row.weights, ',')}{cell(row.bits, '.3f')}{cell(row.bytes, ',.0f')}{cell(row.damage, '.6f')}"
        f'<td class="w wraps"><code>{escape(row.edit)}</code></td></tr>'
    )


def _left_alone(run: Run) -> str:
    skipped: Sequence[Mapping[str, str]] = run.result.get("skipped") or run.about.get("skipped") or ()
    if not skipped:
        return ""
    return "<h2>Left as it was</h2>" + "".join(
        f"<p>{escape(reason)}: <span class=soft>{escape(', '.join(units))}</span></p>"
        for reason, units in words.by_reason(skipped).items()
    )


def _again(run: Run) -> str:
    """The command to do it again: as it was given, or as far as it is on record."""
    said = run.result.get("again")
    rebuilt = "" if said else " It is put together from what is on record: --keep, --pin and --round are not."
    said = said or _command(run)
    if not said:
        return ""
    return (
        f'<h2>Do it again</h2><p class=soft>In a shell.{rebuilt}</p><pre tabindex="0"><code>{escape(said)}</code></pre>'
    )


def _command(run: Run) -> str:
    about = run.about
    if not (about.get("model") and about.get("data") and run.asked):
        return ""
    options = {"data": about["data"], "budget": run.asked}
    options |= {
        name: about[name] for name in ("format", "over", "damage", "allocate", "samples", "seed") if name in about
    }
    options |= {"seq-len": about["seq_len"]} if about.get("seq_len") else {}
    spelled = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["secateur", "cut", str(about["model"]), *spelled, "-o", str(run.out)])


def _footer(run: Run) -> str:
    from secateur import __version__

    return (
        "<footer><p>Damage is the rise of the loss, in nats per token: 0.01 is one per cent more perplexity. Expected "
        "figures come from the survey, measured ones from text held back from it; ± is one standard error. KL says how "
        "far the cut network's predictions are from the uncut one's, whether right or wrong.</p>"
        f"<p>Secateur {escape(__version__)}. The same numbers for scripts: <code>secateur.json</code>.</p></footer>"
    )
