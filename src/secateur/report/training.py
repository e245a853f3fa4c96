"""Loss curves: how something was trained, as a part of a page or a page of its own, from its `History`."""

from __future__ import annotations

import math
from html import escape

from secateur import words
from secateur.model.history import History
from secateur.report.pictures import svg, whole

#: points of the line at most, and lines of the table
POINTS, LINES = 500, 16


def section(made: History | None, name: str) -> str:
    """What was read, how the loss fell, and the same as a table."""
    if made is None or len(made.losses) < 2:
        return ""
    return (
        f"<h2>How {escape(name)} was trained</h2><p class=soft>{told(made)}</p><ul class=key>{_keys(made)}</ul>"
        f'<figure data-name="training" style="max-width:52rem">{curve(made)}</figure>{_table(made)}'
    )


def told(made: History) -> str:
    """A training in one sentence."""
    smooth = made.smooth()
    said = f"{made.steps[-1]:,} steps, {made.tokens[-1]:,} {made.each}s"
    said += f", in {words.seconds(made.seconds)}" if made.seconds else ""
    said += f". The loss fell from {words.nats(made.losses[0])} to {words.nats(smooth[-1])} nats per {made.each}"
    if made.held_losses:
        said += f"; of what is held out to {words.nats(made.held_losses[-1])}"
    return said + "."


def _keys(made: History) -> str:
    ring = '<svg viewBox="0 0 14 14" aria-hidden="true">'
    keys = f'<li>{ring}<path class="faint" d="M0 7h14"/></svg>every step</li>'
    keys += f'<li>{ring}<path class="curve" d="M0 7h14"/></svg>running mean</li>'
    return keys + (f"<li>{ring}<circle class=ours cx=7 cy=7 r=5 /></svg>held out</li>" if made.held_losses else "")


def curve(made: History | None) -> str:
    """Loss against steps as SVG: every step faintly, their running mean, what is held out as points."""
    if made is None or len(made.losses) < 2:
        return ""
    wide, high, left, bottom, top = 720.0, 340.0, 64.0, 44.0, 12.0
    steps, losses = made.thinned(POINTS)
    smooth = made.smooth()
    step = max(1, math.ceil(len(smooth) / POINTS))
    mean = list(zip(made.steps[step - 1 :: step], smooth[step - 1 :: step], strict=True))
    shown = [x for x in (*losses, *made.held_losses, *(y for _, y in mean)) if math.isfinite(x)]
    if not shown:
        return ""
    low, up = min(shown), max(shown)
    first, last = float(made.steps[0]), float(max(made.steps[-1], made.steps[0] + 1))

    def x(at: float) -> float:
        return left + 8 + (at - first) / (last - first) * (wide - left - 28)

    def y(loss: float) -> float:
        return high - bottom - 8 - (loss - low) / max(up - low, 1e-9) * (high - bottom - top - 8)

    parts = []
    for tick in whole(low, up, 7):
        parts.append(f'<line class="grid" x1="{left}" x2="{wide}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in whole(first, last, 8):
        parts.append(f'<text x="{x(tick):.1f}" y="{high - bottom + 18}" text-anchor="middle">{tick:,g}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{wide}" y1="{high - bottom}" y2="{high - bottom}"/>')
    parts.append(f'<text x="{(left + wide) / 2}" y="{high - 6}" text-anchor="middle">steps</text>')
    middle = (high - bottom) / 2
    parts.append(f'<text x="14" y="{middle}" transform="rotate(-90 14 {middle})" text-anchor="middle">'
                 f"loss, nats per {made.each}</text>")  # fmt: skip
    for dress, line in (("faint", list(zip(steps, losses, strict=True))), ("curve", mean)):
        points = " ".join(f"{x(at):.1f},{y(loss):.1f}" for at, loss in line if math.isfinite(loss))
        parts.append(f'<polyline class="{dress}" points="{points}"/>')
    for at, loss in zip(made.held_steps, made.held_losses, strict=True):
        if math.isfinite(loss):
            said = f"step {at:,}: held out {words.nats(loss)} nats per {made.each}"
            parts.append(
                f'<circle class="ours" cx="{x(at):.1f}" cy="{y(loss):.1f}" r="5"><title>{said}</title></circle>'
            )
    label = f"The loss against steps, from {losses[0]:.3g} to {smooth[-1]:.3g}; the table below it has the numbers"
    return svg(wide, high, label, parts, 'class="fits"')


def _table(made: History) -> str:
    """Some of the steps, those behind which something was measured among them."""
    smooth, place = made.smooth(), {step: at for at, step in enumerate(made.steps)}
    held = {step: loss for step, loss in zip(made.held_steps, made.held_losses, strict=True) if step in place}
    every = max(1, len(made.steps) // LINES)
    chosen = sorted(list(held)[-LINES:]) if held else [*made.steps[every - 1 :: every]]
    lines = "".join(
        f"<tr><td>{step:,}</td><td>{made.tokens[place[step]]:,}</td><td>{words.nats(smooth[place[step]])}</td>"
        f"<td>{words.nats(held.get(step))}</td></tr>"
        for step in chosen
    )
    heads = ("steps", f"{made.each}s", "loss, running mean", "held out")
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    return (
        '<details><summary>the same as a table</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="the training"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></details>'
    )


def page(made: History, name: str, more: str = "") -> str:
    """A page of its own, of a folder in which something was trained and nothing was cut; `more` stands behind it."""
    from secateur import __version__
    from secateur.report.page import whole as of_parts

    title = f"{name}, trained"
    parts = [f"<header><h1>{escape(title)}</h1></header>", section(made, name), more]
    parts += [f"<footer><p>Secateur {escape(__version__)}. The same numbers for scripts: <code>training.json</code>."
              "</p></footer>"]  # fmt: skip
    return of_parts(title, parts, {})
