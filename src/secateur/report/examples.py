"""Where it hurt: the held-back examples as a map, like beside like, coloured by what each of them lost.

A folder has it where a cut has left `examples.json` (what they are and how they lie together) and `windows.json` (what
became of each). Whoever chooses among examples can be shown the same way: a colour is a name and a value an example.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from secateur import words
from secateur.methods.data.dendromap import Tree
from secateur.report.pictures import svg

log = logging.getLogger("secateur")

#: clusters of the still picture and of the table, how many examples one needs to be called the worst, and how many
#: small pictures are shown of it
CLUSTERS, ENOUGH, SHOWN = 12, 3, 16


@dataclass(frozen=True)
class Colour:
    """What examples can be coloured by: a value for each. `unit` is said behind a number; "%" is a share. The `scale`
    of colours is one of the style: `hurt`, or `chosen`."""

    name: str
    values: tuple[float, ...]
    unit: str
    scale: str = "hurt"

    @property
    def heading(self) -> str:
        return f"{self.name}, {self.unit}" if self.unit not in ("", "%") else self.name

    def number(self, value: float) -> str:
        return f"{value:.1%}" if self.unit == "%" else words.nats(value)

    def said(self, value: float) -> str:
        return self.number(value) if self.unit == "%" else f"{words.nats(value)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Examples:
    """Examples as a tree, what there is to look at of each, and what they can be coloured by, the first at first."""

    each: str  # "window", "example", "document" ...
    all: int  # how many there were, of which these are some
    tree: Tree
    central: Sequence[int]
    said: Sequence[str]
    pictures: Sequence[str]
    colours: tuple[Colour, ...]
    marked: Sequence[int] = ()  # those that turned wrong, or were chosen
    mark: str = "wrong"


def read(out: Path, unit: str) -> Examples | None:
    """What a cut has left of its held-back examples; None where there is nothing, or files that do not fit together."""
    try:
        known, lost = (json.loads((out / f"{name}.json").read_text("utf-8")) for name in ("examples", "windows"))
        return _fitted(known, lost, unit)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError) as why:
        log.warning("%s: the map of the held-back examples cannot be read (%s)", out, why)
        return None


def _fitted(known: Mapping[str, Any], lost: Mapping[str, Any], unit: str) -> Examples:
    at = list(known["of"])
    tree = Tree(tuple((int(a), int(b)) for a, b in known["children"]), tuple(map(float, known["distance"])))
    if not tree.n == len(at) == len(known["said"]) or len(lost["kl"]) != known["all"]:
        raise ValueError("examples.json and windows.json are of different runs")
    values = {name: tuple(float(lost[name][i]) for i in at) for name in ("kl", "rise", "right", "right_before")}
    colours = [Colour("KL to the uncut", values["kl"], unit), Colour("rise of the loss", values["rise"], unit)]
    said, marked = list(known["said"]), []
    if "first" in lost:
        pairs = list(zip(values["right_before"], values["right"], strict=True))
        marked = [i for i, (before, after) in enumerate(pairs) if before > after]
        colours.append(Colour("turned wrong", tuple(float(before > after) for before, after in pairs), "%"))
        firsts = ((lost["first_before"][i], lost["first"][i]) for i in at)
        said = [f"{one}: taken for {a}" + f", now {b}" * (a != b) for one, (a, b) in zip(said, firsts, strict=True)]
    return Examples(
        known["each"], known["all"], tree, known["central"], said, known.get("pictures", ()), tuple(colours), marked
    )


def data(seen: Examples | None) -> dict[str, Any]:
    """What the page's script knows of them."""
    if seen is None or seen.tree.n < 2:
        return {}
    short = [float(f"{d:.5g}") for d in seen.tree.distance]
    colours = [
        {"name": one.name, "unit": one.unit, "scale": one.scale, "values": [float(f"{v:.4g}") for v in one.values]}
        for one in seen.colours
    ]
    about = {"each": seen.each, "children": seen.tree.children, "distance": short, "central": seen.central}
    about |= {"said": seen.said, "pictures": seen.pictures, "colours": colours, "marked": seen.marked}
    about |= {"mark": seen.mark, "weights": seen.tree.weights}
    return {"examples": about}


def section(seen: Examples | None) -> str:
    """The part of the page: a sentence on the worst, the map, and the same as a table."""
    if seen is None or seen.tree.n < 2:
        return ""
    some = f" {seen.tree.n:,} of {seen.all:,} are on it." * (seen.tree.n < seen.all)
    return (
        f"<h2>Where it hurt</h2><p class=soft>The held-back {seen.each}s, like beside like: an area is a cluster, and "
        f"as large as it has {seen.each}s.{some} The colour is what they lost on the mean.</p>{_worst(seen)}"
        f"{canvas(seen, 'where-it-hurt', 'held-back ')}<details><summary>the same as a table</summary>"
        f"{table(seen, 'held-back ')}</details>"
    )


def canvas(seen: Examples, name: str, kind: str = "") -> str:
    """The map to be walked in, and in its place without script the still one."""
    tabs = "".join(f'<button type="button" id="lost-{at}">{one.name}</button>' for at, one in enumerate(seen.colours))
    return (
        '<div class="live"><p class=soft>Click to come nearer, down to single ones. With keys: arrows, Enter, Escape.'
        f'</p><div class="tools"><div class="tabs" role="group" aria-label="colour"><span>colour</span>{tabs}</div>'
        '<div class="scale" id="lost-scale" aria-hidden="true"></div></div><nav class="crumbs" id="lost-crumbs" '
        f'aria-label="where among the {seen.each}s"></nav><figure data-name="{name}"><div class="map" id="lost" '
        f'data-mark="{seen.mark}" role="group" aria-label="map of the {kind}{seen.each}s; the table below it has the '
        'same numbers"></div><p class="about" id="lost-about" aria-live="polite"></p></figure></div>'
        f'<figure class="still">{picture(seen, kind)}</figure>'
    )


def _worst(seen: Examples) -> str:
    """The cluster that lost most, in words, where it is one of several."""
    colour = seen.colours[0]
    worst = seen.tree.worst(colour.values, CLUSTERS, ENOUGH)
    if len(worst) < 2:
        return ""
    means = seen.tree.means(colour.values)
    mean = means[seen.tree.root]
    times = f", {means[worst[0]] / mean:.1f} times the mean" if mean > 0 else ""
    chance, most = seen.tree.by_chance(colour.values, CLUSTERS, ENOUGH)
    sure = "" if means[worst[0]] > most else ": chance may explain it"
    lost = f"<p>Most was lost on {seen.tree.counts[worst[0]]} {seen.each}s with a {colour.name} of "
    lost += (
        f"{colour.said(means[worst[0]])}{times}. The worst of as many random groups has {words.nats(chance)} on the "
    )
    lost += f"mean, and 95% of the time less than {words.nats(most)}{sure}."
    if seen.pictures:
        some = seen.tree.members(worst[0])[:SHOWN]
        drawn = "".join(f'<img src="{seen.pictures[at]}" alt="{escape(seen.said[at])}">' for at in some)
        return f'{lost}</p><p class="some">{drawn}</p>'
    return f"{lost} In their midst: <q>{_quote(seen, worst[0], 160)}</q></p>"


def _quote(seen: Examples, node: int, most: int) -> str:
    said = " ".join(seen.said[seen.central[node]].split())
    return escape(said[:most] + "…" * (len(said) > most))


def table(seen: Examples, kind: str = "") -> str:
    """The clusters that the map begins with, those with most of the first colour before the others."""
    means = [(one, seen.tree.means(one.values)) for one in seen.colours]
    lines = "".join(
        f"<tr><td>{seen.tree.counts[node]:,}</td>"
        + "".join(f'<td data-v="{mean[node]:.6g}">{one.number(mean[node])}</td>' for one, mean in means)
        + f'<td class="w wraps">{_shown(seen, node)}</td></tr>'
        for node in seen.tree.worst(seen.colours[0].values, CLUSTERS)
    )
    names = "".join(f'<th scope="col">{one.heading}</th>' for one in seen.colours)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="clusters of the {kind}{seen.each}s">'
        f'<table class="sorts"><thead><tr><th scope="col">{seen.each}s</th>{names}<th scope="col" class="w">in their '
        f"midst</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _shown(seen: Examples, node: int) -> str:
    """The example in the midst of a cluster."""
    at = seen.central[node]
    small = f'<img class="small" src="{seen.pictures[at]}" alt=""> ' if seen.pictures else ""
    return small + _quote(seen, node, 140)


def picture(seen: Examples | None, kind: str = "held-back ") -> str:
    """The map as it is at first, as SVG: the stronger the colour, the more there is of what it stands for."""
    if seen is None or seen.tree.n < 2:
        return ""
    wide, high, colour = 960.0, 420.0, seen.colours[0]
    means, shown = seen.tree.means(colour.values), seen.tree.visible(CLUSTERS)
    low, top = min(means[node] for node in shown), max(means[node] for node in shown)
    places, parts = seen.tree.areas(shown, wide, high), []
    for node in shown:
        x, y, w, h = places[node]
        strong = math.sqrt((means[node] - low) / (top - low)) if top > low else 0.5
        parts.append(
            f'<rect class="{colour.scale}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{max(w - 2, 0.5):.1f}" '
            f'height="{max(h - 2, 0.5):.1f}" fill-opacity="{0.06 + 0.84 * strong:.3f}"><title>'
            f"{seen.tree.counts[node]} {seen.each}s: {colour.name} {colour.said(means[node])}. "
            f"{_quote(seen, node, 160)}</title></rect>"
        )
        if w > 70 and h > 34:
            count, dress = f"{seen.tree.counts[node]} {seen.each}s", "over" if strong > 0.7 else "on"
            for at, line in enumerate((count, colour.number(means[node]))):
                parts.append(f'<text class="{dress}" x="{x + 8:.1f}" y="{y + 18 + 15 * at:.1f}">{line}</text>')
    return svg(wide, high, f"{len(shown)} clusters of {kind}{seen.each}s; the table has the numbers", parts)
