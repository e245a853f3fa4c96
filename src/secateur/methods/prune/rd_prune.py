"""Prune every layer by as much as makes the outputs move least: one curve a layer, added up, solved for the best.

Paper: Xu et al., Efficient Joint Optimization of Layer-Adaptive Weight Pruning in Deep Neural Networks
    (arXiv 2308.10438, 2023)
Wing: prune
Shape: cut
Applies to: any layered network
Use: secateur cut MODEL --data text.txt --budget "9 bits/weight" --edits sparse -f packed --allocate rd-prune -o out

To first order what a change of one layer does to the outputs is uncorrelated with what a change of another does, so
that squared distances add up. Each layer is pruned alone to every level and the distance measured (`curves`); a dynamic
program over layers finds the levels of least sum.

Where we differ: the authors' program takes the nearest level of its budget grid and may miss the budget; ours is the
exact knapsack, to the byte. As an allocator it takes the damages of the menu for its curves (they are nats, predicted
of every level at once, and corrected as a whole); for curves that were measured as in the paper use `allocated`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from secateur.maths import knapsack, masks
from secateur.parts.allocate import Question
from secateur.types import Budget, Menu, Plan


def pruned(w: Tensor, keep: float) -> Tensor:
    """The largest weights of one layer, the rest zero."""
    return w * masks.top(w.abs(), masks.count(keep, w.numel())) if keep < 1 else w


def curves(
    outputs: Callable[[Mapping[str, Tensor]], Tensor],
    weights: Mapping[str, Tensor],
    keeps: Sequence[float],
    worst: bool = False,
) -> np.ndarray:
    """Distances of the outputs, [layers, levels], with one layer pruned to each level and all others as they are.

    `outputs(put)` are the network's, [samples, ..., classes], with some weights replaced. The squared distance is a
    mean over classes, then over samples, or with `worst` the largest of them.
    """
    before = outputs({})
    out = np.zeros((len(weights), len(keeps)))
    for i, (name, w) in enumerate(weights.items()):
        for j, keep in enumerate(keeps):
            if keep < 1:
                moved = (outputs({name: pruned(w, keep)}) - before).double().square().flatten(0, -2).mean(-1)
                out[i, j] = float(moved.max() if worst else moved.mean())
    return out


def allocated(curve: np.ndarray, size: np.ndarray, keeps: Sequence[float], keep: float) -> np.ndarray:
    """The share that each layer keeps: the least sum of distances with no more than `keep` of all weights kept."""
    cost = size[:, None] * np.asarray(keeps)[None, :]
    chosen = knapsack.exact([cost], [keep * size.sum() * (1 + 1e-12)], curve)
    return np.asarray(keeps)[chosen.edits]


def rd_prune(menu: Menu, budget: Budget) -> Plan:
    """The least sum of the menu's damages within the budget."""
    return Question.of(menu, budget).solve(knapsack.exact, "rd-prune")
