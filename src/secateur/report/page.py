"""The page of the report: what was asked and what came out, its pictures, every unit, and how to do it again.

Everything that it says stands in it as plain HTML and SVG; scripts add sorting and searching (`page.js`), maps
(`treemap.js`, `examples.js`) and the budget's slider (`explore.js`). Nothing is loaded from anywhere. Why no plotting
library: `docs/log.md`, 2026-11-25.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from secateur import again, words
from secateur.report import examples, pictures, tables, training
from secateur.report.frontier import Point, curve, data, lead, ours

if TYPE_CHECKING:
    from secateur.catalogue import Method
    from secateur.report import Run


#: what the page's script is made of, in this order, and what it must know for a part to be of use
SCRIPTS = {"page": (), "treemap": ("plans", "examples"), "explore": ("plans",), "examples": ("examples",)}


def draw(run: Run) -> str:
    """The whole page, as HTML."""
    name = Path(str(run.result.get("model") or run.about.get("model") or "")).name or "a model"
    title = f"{name}, cut to {words.budgets([run.asked])[run.asked]}" if run.asked else f"{name}, cut"
    by = lead(run)
    points, mine = curve(run.menu, by, run.caps) if run.menu else [], ours(run)
    plans = data(run.menu, points, mine, by)
    known = plans | {"each": run.each} | examples.data(run.examples)
    parts = [f"<header><h1>{escape(title)}</h1>", _lead(run), "</header>", _tiles(run), _agreement(run), _facts(run)]
    parts += [examples.section(run.examples)]
    parts += [tables.went(run), _budget(run, points, mine, plans), _depth(run, plans), tables.units(run), "</section>"]
    parts += [_left_alone(run), training.section(run.trained, name)]
    parts += [_again(run), _papers(run), _footer(run)]
    return whole(title, parts, known)


def whole(title: str, parts: Sequence[str], known: Mapping[str, Any]) -> str:
    """A page with its style and script in it, of parts that are HTML and of what the script is to know."""
    body, here = "\n".join(part for part in parts if part), Path(__file__)
    style = here.with_suffix(".css").read_text(encoding="utf-8")
    used = (name for name, needs in SCRIPTS.items() if not needs or any(one in known for one in needs))
    script = "".join(here.with_name(f"{name}.js").read_text(encoding="utf-8") for name in used)
    # a name may hold `</script>`; inside JSON, `<` can be written otherwise
    told = json.dumps(known, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Template(here.with_suffix(".html").read_text(encoding="utf-8")).substitute(
        title=escape(title), body=body, style=style, script=script, data=told
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
    for resource in words.asked_first(run.spent, run.caps):
        value, cap = run.spent[resource], run.caps.get(resource)
        beside = f"of {words.number(resource, cap)} asked for, {value / cap:.1%}" if cap else ""
        if resource == "bytes" and (uncut := _uncut(run)):
            beside = f"{beside}; " * bool(beside) + f"{uncut / value:.1f} times smaller than {words.size(uncut)}"
        tiles.append((words.called(resource), words.number(resource, value), beside))
    if run.planned:
        tiles.append(("damage expected", _give_or_take(*run.planned), f"nats per {run.each}, before anything was cut"))
    if run.measured:
        ratio = (
            f"; {run.measured[0] / run.planned[0]:.2f} of what was expected" if run.planned and run.planned[0] else ""
        )
        tiles.append(("damage measured", _give_or_take(*run.measured), f"nats per {run.each}{ratio}"))
    if result:
        losses = f"{words.nats(result['loss_before'])} &rarr; {words.nats(result['loss_after'])}"
        held = "text" if run.each == "token" else "examples"
        tiles.append((f"loss, held-back {held}", losses, f"nats per {run.each}"))
    if result.get("accuracy_after") is not None:
        right = f"{result['accuracy_before']:.2%} &rarr; {result['accuracy_after']:.2%}"
        tiles.append(("accuracy", right, "of the held-back examples"))
    if result.get("kl") is not None:
        same = f"; the same first choice {result['agreement']:.1%} of the time" if "agreement" in result else ""
        tiles.append(
            ("KL to the uncut", _give_or_take(result["kl"], result.get("kl_error")), f"nats per {run.each}{same}")
        )
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
        facts["the plan is"] = f"{near}: no plan within the budget stays below {floor:.5g} nats per {run.each}"
    if result.get("bad_rows"):
        bad = ", ".join(f"{one['unit']} ({len(one['rows'])})" for one in result["bad_rows"])
        facts["bad rows"] = f"hold NaN or infinity and are zeros in the file: {bad}"
    if about.get("data"):
        some = "stretches" if run.each == "token" else "examples"
        facts["calibrated on"] = f"{about.get('samples')} {some} of {about['data']}, seed {about.get('seed')}"
    if result.get("resumed"):
        facts["resumed"] = "earlier work was taken up"
    return _list(facts)


def _list(facts: Mapping[str, str]) -> str:
    drawn = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{drawn}</dl>" if facts else ""


def _agreement(run: Run) -> str:
    floor = run.result.get("damage_floor", run.plan.bound if run.plan else None)
    drawn = pictures.agreement(run.planned, run.measured, floor, run.each)
    if not drawn:
        return ""
    return (
        "<h2>Predicted against measured</h2>"
        f"<p class=soft>The rise of the loss in nats per {run.each}: as the survey expected it before anything was "
        "cut, and as it was found on data held back. Bars are standard errors; the dotted line is the "
        "proven floor of any plan.</p>"
        f'<figure data-name="predicted-and-measured" style="max-width:44rem">{drawn}</figure>'
    )


def _depth(run: Run, known: Mapping) -> str:
    room = max((8 * min(filter(None, row), default=0) / unit[3] for row, unit in _rich(known)), default=0.0)
    drawn = pictures.depth(run.rows, run.spent.get("bits_per_weight"), min(room, 8.5))
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
        f'<figure data-name="bits-by-depth"><div class="scroll" tabindex="0" role="region" '
        f'aria-label="bits of every unit">{drawn}</div></figure>'
    )


def _rich(known: Mapping) -> list[tuple[list, list]]:
    """What the units get in the richest plan that the slider reaches, for the picture's scale."""
    if not known:
        return []
    rich = max(known["plans"], key=lambda plan: plan["spent"].get("bits_per_weight", 0.0))
    choice, payload = rich["choice"], known["prices"][rich["prices"]]["payload"]
    cut = [u for u, e in enumerate(choice) if not known["edits"][e].startswith("keep")]
    return [([payload[u][choice[u]]], known["units"][u]) for u in cut]


def _budget(run: Run, points: Sequence[Point], mine: Point | None, known: Mapping) -> str:
    """The frontier, with a slider that shows the plan at each of its points, and the map of the network.

    Begins the section in which the slider stays in sight."""
    by = lead(run)
    drawn = pictures.frontier(points, mine, run.measured, f"nats per {run.each}", by)
    if not drawn:
        return "<section>"
    ring = '<svg viewBox="0 0 14 14" aria-hidden="true">'
    keys = f"<li>{ring}<circle class=dot cx=7 cy=7 r=3 /></svg>the best plan at other budgets</li>"
    keys += f"<li>{ring}<circle class=ours cx=7 cy=7 r=5.5 /></svg>this plan, expected</li>" if mine else ""
    if run.measured:
        beside = "" if run.measured[0] > 0 else ": below zero, so not in the picture"
        keys += f'<li>{ring}<path class=measured d="M7 2l5 5l-5 5l-5 -5z"/></svg>this plan, measured{beside}</li>'
    shown = words.asked_first((one for one in ("bits_per_weight", "bytes", by) if one in points[0].spent), {by: 0.0})
    shown = list(dict.fromkeys(shown))
    listed = "".join(
        f"<tr>{''.join(f'<td>{words.number(one, p.spent[one])}</td>' for one in shown)}"
        f"<td>{p.damage:.3g} ± {p.error:.2g}</td><td>{p.floor:.3g}</td></tr>"
        for p in points
    )
    heads = (*map(words.called, shown), "damage expected", "proven floor")
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in heads)}</tr>"
    others = [words.amount(one, cap) for one, cap in run.caps.items() if one != by]
    held = f" All of them keep to {escape(' and '.join(others))} as well." if others else ""
    bar, side, area = (_bar(), _side(run), _map(by)) if known else ("", "", "")
    return (
        '<section aria-label="the plan, and those for other budgets"><h2>What other budgets would cost</h2>'
        f"<p class=soft>The rise of the loss in nats per {run.each}, as the survey "
        f"expects it; lines are standard errors. Each was planned in a blink: <code>secateur plan</code>.{held}"
        f"{' The slider shows the plan at each point, here and in everything below.' * bool(known)}</p>"
        f'{bar}<div class="two"><figure id="frontier" data-name="frontier">'
        f"{drawn}<ul class=key>{keys}</ul></figure>{side}</div><details><summary>the same as a table</summary>"
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{listed}</tbody></table></div></details>{area}'
    )


def _bar() -> str:
    return (
        '<div class="bar live"><label for="budget" id="said">the budget</label>'
        '<div class="track"><input type="range" id="budget" min="0" max="1" step="1"></div>'
        '<button type="button" class="button" id="back">back to this plan</button></div>'
    )


def _side(run: Run) -> str:
    menu = escape(str(run.result.get("menu") or run.out / "menu"))
    return (
        '<div class="side live" aria-live="polite"><dl id="facts"></dl><h3>Made of, by weights</h3><ul class="mix" '
        'id="mix"></ul><h3>Take it</h3><div class="copy"><pre tabindex="0"><code id="plan" '
        f'data-menu="{menu}"></code></pre></div></div>'
    )


def _map(by: str) -> str:
    areas = {"after": "bytes after", "before": "bytes before"}
    areas |= {} if by in ("bytes", "bits_per_weight") else {"by": words.called(by)}

    def tabs(name: str, said: str, choices: Mapping[str, str]) -> str:
        buttons = "".join(f'<button type="button" id="{name}-{key}">{text}</button>' for key, text in choices.items())
        return f'<div class="tabs" role="group" aria-label="{said}"><span>{said}</span>{buttons}</div>'

    return (
        '<div class="live"><h2>The network as a map</h2><p class=soft>Every area is a unit, inside its block. Click to '
        "come nearer, from the network to a block to a unit and all that it could have had. With keys: arrows, Enter, "
        'Escape.</p><div class="tools">'
        + tabs("area", "area", areas)
        + tabs("colour", "colour", {"edit": "bits it got", "damage": "damage"})
        + '<div class="scale" id="scale" aria-hidden="true"></div></div><nav class="crumbs" id="crumbs" '
        'aria-label="where in the network"></nav><figure id="map-figure" data-name="map">'
        '<div class="map" id="map" role="group" '
        'aria-label="map of the network; the table of units has the same numbers"></div><p class="about" id="about" '
        'aria-live="polite"></p></figure><table class="menu" id="menu" hidden><thead><tr><th>edit it could have</th>'
        "<th>bits per weight</th><th>bytes</th><th>damage</th></tr></thead><tbody></tbody></table></div>"
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
    """The command to do it again, as it was given or as far as it is on record, and the same as a recipe."""
    said, rebuilt = again.command(run)
    if not said:
        return ""
    more = " It is put together from what is on record: --keep, --pin and --round are not." * rebuilt
    recipe = again.recipe(said)
    as_recipe = (
        "<details><summary>the same as a recipe, for <code>secateur cut MODEL --recipe recipe.yaml</code></summary>"
        f"{copied(recipe)}</details>"
        if recipe
        else ""
    )
    return f"<h2>Do it again</h2><p class=soft>In a shell.{more}</p>{copied(said)}{as_recipe}"


def copied(text: str) -> str:
    return f'<div class="copy"><pre tabindex="0"><code>{escape(text)}</code></pre></div>'


def _papers(run: Run) -> str:
    """Whom to thank: the papers behind what this run did."""
    return cited(again.papers(run))


def cited(used: Sequence[Method]) -> str:
    if not used:
        return ""
    lines = "".join(map(_paper, used))
    return f'<h2>Papers it stands on</h2><ul class="papers">{lines}</ul>'


def _paper(one: Method) -> str:
    said = escape(one.link.partition("//")[2])
    link = f' <a href="{escape(one.link)}" rel="noreferrer">{said}</a>' if one.link else ""
    does = escape(one.sentence[0].lower() + one.sentence[1:])
    return f"<li>{escape(one.paper)}{link}: {does} <code>secateur methods {escape(one.name)}</code></li>"


def _footer(run: Run) -> str:
    from secateur import __version__

    return (
        f"<footer><p>Damage is the rise of the loss, in nats per {run.each}"
        f"{': 0.01 is one per cent more perplexity' * (run.each == 'token')}. Expected figures come from the survey, "
        "measured ones from data held back from it; ± is one standard error. KL says how "
        "far the cut network's predictions are from the uncut one's, whether right or wrong.</p>"
        f"<p>Secateur {escape(__version__)}. The same numbers for scripts: <code>secateur.json</code>.</p></footer>"
    )
