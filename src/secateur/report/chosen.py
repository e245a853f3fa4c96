"""The page of a selection: what was kept and what was dropped, as a map of clusters, in words, and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from secateur import words
from secateur.maths.clustering import nearest, scaled
from secateur.methods.data.dendromap import central, tree
from secateur.report import examples
from secateur.report.examples import CLUSTERS, Colour, Examples
from secateur.report.page import cited, copied, whole

if TYPE_CHECKING:
    from secateur.parts.eyes import Seen
    from secateur.parts.select import Chosen

#: examples in the tree at most, spread evenly; each of the others counts where its nearest of them lies
MOST = 1000
#: what the numbers that are known of an example are counted in
_UNITS = {"loss": "nats", "entropy": "nats"}


@dataclass(frozen=True)
class Mapped:
    """All examples on a map: `groups` has the cluster of each, the largest share kept first."""

    examples: Examples
    groups: Tensor
    nodes: tuple[int, ...]

    def told(self) -> list[dict[str, Any]]:
        """The clusters for scripts, in the order of `groups`."""
        kept = self.examples.tree.means(self.examples.colours[0].values)
        out = []
        for node in self.nodes:
            count = self.examples.tree.counts[node]
            middle = " ".join(self.examples.said[self.examples.central[node]].split())
            out.append(
                {"count": count, "kept": round(kept[node] * count), "share": kept[node], "central": middle[:300]}
            )
        return out


def mapped(eye: Any, seen: Seen, chosen: Chosen, kept: Tensor, each: str) -> Mapped:
    """Lay examples out: a thousand of them as a tree, the others each with the nearest."""
    n = len(seen)
    at = torch.arange(min(n, MOST)) * n // min(n, MOST)
    even = scaled(seen.vectors)
    near = nearest(even, even[at])[0]
    near[at] = torch.arange(len(at))
    weights = torch.bincount(near, minlength=len(at))
    some = seen.vectors[at].double().numpy()
    made = tree(some)
    made = type(made)(made.children, made.distance, tuple(weights.tolist()))
    known = {name: value for name, value in seen.known.items() if name != "tokens"}
    known |= {chosen.scored: chosen.score} if chosen.shown else {}
    colours = [Colour("kept", _means(kept.double(), near, weights), "%", "chosen")]
    for name, value in known.items():
        mean = _means(value.double(), near, weights)
        if all(one == one for one in mean):
            unit = _UNITS.get(name, "") + " per token" * (name in _UNITS and "tokens" in seen.known)
            colours.append(Colour(name, mean, unit))
    said, pictures = eye.shown(at)
    marked = kept[at].nonzero()[:, 0].tolist()
    laid = Examples(each, n, made, central(made, some), said, pictures, tuple(colours), marked, "chosen")
    nodes = tuple(made.worst(colours[0].values, CLUSTERS))
    place = torch.empty(len(at), dtype=torch.long)
    for group, node in enumerate(nodes):
        place[made.members(node)] = group
    return Mapped(laid, place[near], nodes)


def _means(values: Tensor, near: Tensor, weights: Tensor) -> tuple[float, ...]:
    return tuple((torch.zeros(len(weights)).double().index_add_(0, near, values) / weights).tolist())


def draw(told: Mapping[str, Any], found: Mapped) -> str:
    """The whole page, as HTML."""
    used, each = told["used"]["examples"], told["each"]
    title = f"{Path(told['data']).name}: {used:,} of {told['of']:,} {each}s kept"
    parts = [f"<header><h1>{escape(title)}</h1>{_lead(told)}</header>", _tiles(told), _facts(told), _map(told, found)]
    parts += [_again(told), cited(_papers(told["method"])), _footer(told)]
    return whole(title, parts, examples.data(found.examples))


def _lead(told: Mapping[str, Any]) -> str:
    towards = f", for what is like {escape(told['target'])}" if told["target"] else ""
    how = _called(told)
    stopped = f" It {escape(told['about']['said'])}." if told["about"].get("said") else ""
    return (
        f'<p class="lead">{escape(how)} chose from {escape(told["data"])}{towards}, by what {escape(told["model"])} '
        f"makes of it.{stopped}</p>"
    )


def _called(told: Mapping[str, Any]) -> str:
    return str(told["method"])


def _tiles(told: Mapping[str, Any]) -> str:
    used, keep, each = told["used"], told["keep"], told["each"]
    share = used["examples"] / told["of"]
    asked = f"{keep['asked']} asked for"
    tiles = [(f"{each}s kept", f"{used['examples']:,}", f"{share:.1%} of {told['of']:,}; {asked}")]
    means = dict(told["means"])
    if "tokens" in used and "tokens" in means:
        total = means.pop("tokens")["all"] * told["of"]
        tiles.append(("tokens kept", f"{used['tokens']:,}", f"{used['tokens'] / total:.1%} of {total:,.0f}"))
    for name, mean in means.items():
        unit = _UNITS.get(name, "")
        unit += " per token" * (unit != "" and "tokens" in used)
        tiles.append(
            (f"{name}, kept", words.nats(mean["kept"]), f"{unit}; {words.nats(mean['all'])} of all".lstrip("; "))
        )
    spent = told["charged"]
    tiles.append(("looked", f"{spent['forward']:,.0f} passes", "forward, one example each; none backward"))
    drawn = "".join(f"<li><span>{a}</span><strong>{b}</strong><small>{escape(c)}</small></li>" for a, b, c in tiles)
    return f'<ul class="tiles">{drawn}</ul>'


def _facts(told: Mapping[str, Any]) -> str:
    facts = {"understood as": told["taken"]}
    if told["of"] < told["in_the_file"]:
        facts["looked at"] = f"{told['of']:,} of {told['in_the_file']:,}; the others have no text, or were left out"
    if told.get("longer"):
        facts["read in part"] = (
            f"{told['longer']:,} {told['each']}s are longer than {told['seq_len']} tokens and were read so far"
        )
    drawn = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{drawn}</dl>"


def _map(told: Mapping[str, Any], found: Mapped) -> str:
    seen = found.examples
    if seen.tree.n < 2:
        return ""
    each = seen.each
    near = f" {seen.tree.n:,} of them make the tree, and each of the others counts with the nearest." * (
        seen.tree.n < seen.all
    )
    return (
        f"<h2>What was kept, and what was dropped</h2><p class=soft>All {seen.all:,} {each}s, like beside like: an "
        f"area is a cluster, as large as it has {each}s, and the greener the larger the share of them that was kept."
        f"{near}</p>{_words(found)}{examples.canvas(seen, 'kept-and-dropped')}<h3>The clusters that it begins with</h3>"
        f"{examples.table(seen)}"
    )


def _words(found: Mapped) -> str:
    """The map in a sentence: how much of it was kept where, and how much of it was left out altogether."""
    clusters = found.told()
    if len(clusters) < 2:
        return ""
    total, most = sum(one["kept"] for one in clusters), clusters[0]
    none = [one for one in clusters if not one["kept"]]
    said = f"Most was kept of a cluster of {most['count']:,}: {most['kept']:,} of them, {most['share']:.0%}"
    said += f", which is {most['kept'] / max(total, 1):.0%} of all that was kept. "
    if none:
        lost = sum(one["count"] for one in none)
        said += f"Nothing was kept of {len(none)} of the {len(clusters)} clusters, {lost:,} {found.examples.each}s."
    else:
        said += f"Least was kept of one of {clusters[-1]['count']:,}: {clusters[-1]['share']:.1%}."
    return f"<p>{said}</p>"


def _again(told: Mapping[str, Any]) -> str:
    return f"<h2>Do it again</h2>{copied(told['again'])}" if told.get("again") else ""


def _papers(method: str) -> list[Any]:
    from secateur.catalogue import methods

    slug = method.partition("(")[0].strip().replace("_", "-")
    return [one for one in methods() if one.name in (slug, "dendromap")]


def _footer(told: Mapping[str, Any]) -> str:
    from secateur import __version__

    return (
        f"<footer><p>The chosen {told['each']}s are in <code>{escape(Path(told['file']).name)}</code>, in their "
        "old order. <code>scores.csv</code> has a line for each there was, <code>selection.json</code> what was chosen "
        f"and how.</p><p>Secateur {escape(__version__)}.</p></footer>"
    )
