"""Blocks on whose weights the loss hangs more keep more of them; a few losses say how much, without a backward pass.

Paper: Sung et al., ECoFLaP: Efficient Coarse-to-Fine Layer-Wise Pruning for Vision-Language Models
    (arXiv 2310.02998, 2023)
Wing: prune
Shape: cut
Applies to: the blocks of any network, with any pruning behind it
Use: secateur cut MODEL --data text.txt --budget "9 bits/weight" --edits sparse -f packed --allocate ecoflap -o out

The loss is taken with a layer's weights moved a little along noise, forwards and back; the mean size of the slope is
sqrt(2/pi) of the gradient's norm (`probed`). What a block must keep at least is sure, and the rest of the budget is
shared in proportion to the sums of these scores. The finer choice within a layer is another method's.

Where we differ: a survey has the gradients' statistics already, and computes the expected score from them (`expected`),
with labels sampled from the model; the rest is handed out again and again until it is gone, where the authors' code
adds what it should remove; shares then go down to the menu's levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.maths.factor import height
from secateur.parts.allocate import Question
from secateur.parts.allocate._shares import note, raised
from secateur.types import Allocator, Budget, Menu, Plan


def probed(losses: Sequence[Callable[[], float]], w: Tensor, generator: torch.Generator, eps: float = 1e-3) -> float:
    """The mean size of the slope of the loss along noise in `w`, one draw for every batch of `losses`.

    The tensor is moved in place and put back to the bit.
    """
    before, total = w.clone(), 0.0
    for loss in losses:
        z = torch.randn(w.shape, generator=generator).to(w)
        slope = 0.0
        for sign in (1.0, -1.0):
            w.copy_(before + sign * eps * z)
            slope += sign * loss() / (2 * eps)
        total += abs(slope)
        w.copy_(before)
    return total / len(losses)


def expected(a: Tensor, g: Tensor) -> float:
    """What `probed` is for one token, from the factors: sqrt(2/pi) of the root of the mean squared gradient."""
    energy = float(a.double().diagonal().sum()) * float(height(g).double().sum())
    return math.sqrt(2 / math.pi * max(energy, 0.0))


def shared(score: np.ndarray, size: np.ndarray, keep: float, spread: float = 0.1) -> np.ndarray:
    """The share that each part keeps: `keep` of all together, no part less than `keep - spread`, the rest by score.

    What a part cannot use goes to the others, in the same proportion.
    """
    least = max(keep - spread, 0.0)
    out = np.full(len(size), least)
    rest, open_ = (keep - least) * size.sum(), np.ones(len(size), dtype=bool)
    while rest > 1e-12 * size.sum() and open_.any():
        weight = np.where(open_, score, 0.0)
        weight = weight if weight.sum() > 0 else np.where(open_, size, 0.0)
        more = np.minimum(rest * weight / weight.sum() / size, 1 - out)
        out, rest = out + more, rest - float((more * size).sum())
        open_ &= out < 1 - 1e-12
    return out


@dataclass(frozen=True)
class Ecoflap:
    """No block loses more than `spread` beyond the mean."""

    spread: float = 0.1

    def __call__(self, menu: Menu, budget: Budget) -> Plan:
        score = note(menu, "gradients")
        size = np.array([unit.size for unit in menu.units], dtype=float)
        parts = [unit.name if unit.block is None else unit.block for unit in menu.units]
        of = np.array([list(dict.fromkeys(parts)).index(part) for part in parts])
        scores, sizes = np.bincount(of, weights=score), np.bincount(of, weights=size)
        question = Question.of(menu, budget)
        edits = raised(question, lambda level: shared(scores, sizes, level, self.spread)[of])
        return question.answer(edits, "ecoflap")


ecoflap: Allocator = Ecoflap()
