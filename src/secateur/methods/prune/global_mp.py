"""Rank the weights of all layers together by size, take the smallest away, and leave every layer a few.

Paper: Gupta et al., Is Complexity Required for Neural Network Pruning? A Case Study on Global Magnitude Pruning
    (arXiv 2209.14624, 2022)
Wing: prune
Shape: cut
Applies to: linear layers, convolutions, embeddings
Use: secateur cut MODEL --data text.txt --budget "9 bits/weight" --edits sparse -f packed --allocate global-mp -o out

The mask of the largest k weights of the whole network keeps the most energy, sum w^2, of all masks of k. It knows
nothing of data, and layers whose weights are small by their scale may vanish: so each keeps a floor of `least` weights.

Where we differ: the paper multiplies and clamps layer shares until the total is right; we lift the `least` largest of
every layer to infinity and rank once, which gives exactly k. As an allocator every unit gets the mildest mask of the
menu that keeps no more than the global ranking would, at the highest threshold that the budget allows; which weights of
a unit stay is then searched in the metric as for any plan (`--round nearest` ranks by Wanda).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.maths import masks
from secateur.parts.allocate import Question
from secateur.parts.allocate._shares import note, raised
from secateur.types import Allocator, Budget, Menu, Plan

#: sizes are noted at these shares of a unit's weights
LEVELS = np.linspace(0.0, 1.0, 101)


def kept(weights: Mapping[str, Tensor], keep: float, least: int = 0) -> dict[str, Tensor]:
    """Masks of the `keep` largest of all weights together, and of the `least` largest of each layer at any rate."""
    scores = [masks.lifted(w.abs(), least) for w in weights.values()]
    k = masks.count(keep, sum(w.numel() for w in weights.values()))
    return dict(zip(weights, masks.top_together(scores, k), strict=True))


def quantiles(weights: Sequence[Tensor]) -> np.ndarray:
    """The sizes below which 0, 1, ..., 100% of some weights are."""
    sizes = torch.cat([w.float().abs().flatten() for w in weights]).sort().values
    at = torch.from_numpy(LEVELS) * (len(sizes) - 1)
    return sizes[at.round().long()].double().cpu().numpy()


@dataclass(frozen=True)
class GlobalMP:
    """A floor of the share `least` of all weights for every unit."""

    least: float = 5e-4

    def __call__(self, menu: Menu, budget: Budget) -> Plan:
        sizes = note(menu, "magnitudes")
        n = np.array([unit.size for unit in menu.units], dtype=float)
        floor = np.minimum(self.least * n.sum() / n, 1.0)
        pooled = np.sort(sizes.ravel())

        def target(level: float) -> np.ndarray:
            threshold = np.interp(1 - level, np.linspace(0, 1, len(pooled)), pooled)
            stays = [1 - np.interp(threshold, own, LEVELS, left=0.0, right=1.0) for own in sizes]
            return np.maximum(stays, floor)

        question = Question.of(menu, budget)
        return question.answer(raised(question, target), "global-mp")


global_mp: Allocator = GlobalMP()
