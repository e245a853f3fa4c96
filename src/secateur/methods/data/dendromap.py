"""A map of examples, like beside like, in which one sees where a network lost most.

Paper: Bertucci et al., DendroMap: Visual Exploration of Large-Scale Image Datasets for Machine Learning with Treemaps
    (arXiv 2205.06935, 2022)
Wing: data
Shape: law
Applies to: examples with a vector each: windows of a text, pictures
Use: secateur cut MODEL --data text.txt --budget "3 bits/weight" -o out

Vectors are merged two by two (Ward) into a tree. A map of k clusters opens, from the root on, the node whose merge
spanned the largest distance until k are to be seen, and gives each an area by its number of examples: a rectangle is
split in two along its longer side. Any node can be the root of a map of its own. Coloured by what every example lost,
the map shows where a cut hurt; every cut leaves one in its report, of the examples that were held back.

Where we differ: each number of a vector is scaled to mean 0 and spread 1 first, since in a language model's hidden
states a few would decide alone. Areas are exactly proportional, not rounded to whole cells of pictures. The example
that stands for a cluster is the one nearest its mean. The worst cluster is held against the worst of random groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: random partitions that a worst cluster is held against
DRAWS = 200
#: x, y, width, height
Area = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tree:
    """Merges of n examples, two by two: nodes 0 to n - 1 are the examples, node n + i is merge i of the `children`
    (two nodes each), which lie `distance` apart. The last node is the root. An example may stand for several that are
    not in the tree: `weights` says for how many, itself among them."""

    children: tuple[tuple[int, int], ...]
    distance: tuple[float, ...]
    weights: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        return len(self.children) + 1

    @property
    def root(self) -> int:
        return 2 * self.n - 2

    @cached_property
    def counts(self) -> list[int]:
        """Examples of every node."""
        counts = list(self.weights) or [1] * self.n
        for a, b in self.children:
            counts.append(counts[a] + counts[b])
        return counts

    def below(self, node: int) -> tuple[int, ...]:
        """The two nodes that a node was made of; none of an example."""
        return () if node < self.n else self.children[node - self.n]

    def members(self, node: int) -> list[int]:
        """The examples of a node, neighbours side by side."""
        out, rest = [], [node]
        while rest:
            one = rest.pop()
            out += [one] if one < self.n else []
            rest += reversed(self.below(one))
        return out

    def visible(self, k: int, root: int | None = None) -> list[int]:
        """The nodes of a map of k clusters under a node, side by side as the tree has them."""
        seen = [self.root if root is None else root]
        while len(seen) < k:
            widest = max(seen, key=lambda node: self.distance[node - self.n] if node >= self.n else -1.0)
            if widest < self.n:
                break
            at = seen.index(widest)
            seen[at : at + 1] = self.below(widest)
        return seen

    def means(self, values: Sequence[float]) -> list[float]:
        """Of every node the mean of its examples' values; that of one that stands for several is their mean."""
        means = [float(value) for value in values]
        for (a, b), n in zip(self.children, self.counts[self.n :], strict=True):
            means.append((means[a] * self.counts[a] + means[b] * self.counts[b]) / n)
        return means

    def areas(self, seen: Iterable[int], wide: float, high: float, root: int | None = None) -> dict[int, Area]:
        """Where each of the nodes to be seen lies in a rectangle, and what lies around them."""
        top = self.root if root is None else root
        stop, places = set(seen), {top: (0.0, 0.0, wide, high)}
        rest = [top]
        while rest:
            node = rest.pop()
            if node in stop or not self.below(node):
                continue
            x, y, w, h = places[node]
            a, b = self.below(node)
            share = self.counts[a] / self.counts[node]
            if w >= h:
                places |= {a: (x, y, w * share, h), b: (x + w * share, y, w * (1 - share), h)}
            else:
                places |= {a: (x, y, w, h * share), b: (x, y + h * share, w, h * (1 - share))}
            rest += (a, b)
        return places

    def worst(self, values: Sequence[float], k: int, least: int = 1) -> list[int]:
        """The clusters of a map of k that have at least so many examples, those with the largest mean first."""
        means = self.means(values)
        return sorted((c for c in self.visible(k) if self.counts[c] >= least), key=lambda c: (-means[c], c))

    def by_chance(self, values: Sequence[float], k: int, least: int = 1) -> tuple[float, float]:
        """What the worst of as many random groups of the same sizes comes to: on the mean, and 95% of the time at most.

        The largest of several means is large by itself: a worst cluster below the second says nothing.
        """
        draw, x = np.random.default_rng(0), np.asarray(values, dtype=np.float64)
        groups = [self.members(node) for node in self.visible(k) if self.counts[node] >= least]
        found = []
        for _ in range(DRAWS):
            mixed = x[draw.permutation(len(x))]
            found.append(max(float(mixed[group].mean()) for group in groups))
        return float(np.mean(found)), float(np.quantile(found, 0.95))


def scaled(features: np.ndarray) -> np.ndarray:
    """Every column at mean 0 and spread 1; one that is the same for all says nothing and becomes 0."""
    x = np.asarray(features, dtype=np.float64)
    x = x - x.mean(0)
    spread = x.std(0)
    return x / np.where(spread > 1e-9 * max(float(spread.max(initial=0.0)), 1e-300), spread, np.inf)


def tree(features: np.ndarray) -> Tree:
    """Merge examples [n, numbers] by Ward's rule: at each step the two whose joining adds least to the squares within.

    Memory grows with the square of n: of more than some thousands take a sample.
    """
    from scipy.cluster.hierarchy import linkage

    if len(features) < 2:
        return Tree((), ())
    merges = linkage(scaled(features), "ward")
    return Tree(tuple((int(a), int(b)) for a, b in merges[:, :2]), tuple(float(d) for d in merges[:, 2]))


def central(made: Tree, features: np.ndarray) -> list[int]:
    """Of every node the example that is nearest its mean; of equal ones the first."""
    x = scaled(features)
    sums = list(x)
    out = list(range(made.n))
    for at, (a, b) in enumerate(made.children, made.n):
        sums.append(sums[a] + sums[b])
        some = made.members(at)
        off = ((x[some] - sums[at] / made.counts[at]) ** 2).sum(1)
        out.append(min(zip(np.round(off, 9).tolist(), some, strict=True))[1])
    return out
