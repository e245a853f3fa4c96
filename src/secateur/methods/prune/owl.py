"""Blocks with more outliers keep more weights.

Paper: Yin et al., Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to High Sparsity
    (arXiv 2310.05175, 2023)
Wing: prune
Shape: cut
Applies to: the blocks of a transformer, with any pruning behind it
Use: secateur cut MODEL --data text.txt --budget "9 bits/weight" --edits sparse -f packed --allocate owl -o out

Every weight's size times the size of its input is held against `m` times the mean over its block; the share that is
above tilts the share of weights that the block keeps, by at most `spread` either way.

Where we differ: the mean of the tilts is weighted by the sizes of the blocks, where the paper takes the plain one and
misses its budget when they differ; shares then go down to the menu's levels, at the highest mean that the budget
allows. Units outside blocks are not tilted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.parts.allocate import Question
from secateur.parts.allocate._shares import note, raised
from secateur.types import Allocator, Budget, Menu, Plan


def outliers(block: Sequence[tuple[Tensor, Tensor]], m: float = 5.0) -> float:
    """Of a block's weights, the share (in percent) whose score |w| |x| is above `m` times the block's mean score.

    `block` are weights [rows, cols] with the norms of their inputs [cols]. Higher keeps more.
    """
    scores = torch.cat([(w.float().abs() * norms.to(w.device)).flatten() for w, norms in block])
    return 100.0 * float((scores > m * scores.mean()).float().mean())


def tilts(found: np.ndarray, size: np.ndarray, spread: float) -> np.ndarray:
    """How much more each part keeps than the mean: largest and smallest are 2 `spread` apart, their mean is none.

    Parts of which nothing is known (nan) keep the mean.
    """
    known = np.isfinite(found)
    out = np.zeros_like(found)
    if known.any() and np.ptp(found[known]) > 0:
        tilt = 2 * spread * (found[known] - found[known].min()) / np.ptp(found[known])
        out[known] = tilt - np.average(tilt, weights=size[known])
    return out


@dataclass(frozen=True)
class Owl:
    """Shares tilted by at most `spread` either way."""

    spread: float = 0.08

    def __call__(self, menu: Menu, budget: Budget) -> Plan:
        size = np.array([unit.size for unit in menu.units], dtype=float)
        tilt = tilts(note(menu, "outliers"), size, self.spread)
        question = Question.of(menu, budget)
        edits = raised(question, lambda level: np.clip(level * (1 + self.spread) + tilt, 0, 1))
        return question.answer(edits, "owl")


owl: Allocator = Owl()
