"""How many of a trained network's weights can go at once, by size and without retraining, before it breaks.

Paper: Jaiswal et al., The Emergence of Essential Sparsity in Large Pre-trained Models: The Weights that Matter
    (arXiv 2306.03805, 2023)
Wing: prune
Shape: study
Applies to: any trained network
Use: secateur plan MENU --budget "13 bits/weight" --budget "9 bits/weight" --budget "5 bits/weight" --allocate global-mp

Weights are ranked once, all layers together, and taken away in growing shares; the score falls slowly, then fast. The
paper calls the last share before the fall the essential sparsity, and shows that it is there for N:M too, and grows
abruptly while a network is trained.

Where we differ: the paper gives no formula for the knee. Here it is the largest share whose score is within a tolerance
of the uncut network's (`essential`), or the point farthest from the chord between the ends (`bend`): both are told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from secateur.maths import masks


def swept(
    score: Callable[[Mapping[str, Tensor]], float],
    weights: Mapping[str, Tensor],
    sparsities: Sequence[float],
    rank: Callable[[Tensor], Tensor] = torch.abs,
) -> np.ndarray:
    """The score (higher is better) at each share of weights that are gone; one ranking serves all, so masks are nested.

    `score(put)` is the network's with some weights replaced, `rank` says what goes last.
    """
    sizes = [w.numel() for w in weights.values()]
    ranked = torch.cat([rank(w).flatten() for w in weights.values()])
    levels = masks.nested(ranked, [round((1 - share) * len(ranked)) for share in sparsities])
    out = []
    for mask in levels:
        parts = dict(zip(weights, mask.split(sizes), strict=True))
        out.append(score({name: w * parts[name].view_as(w) for name, w in weights.items()}))
    return np.array(out)


def n_of_m(weights: Mapping[str, Tensor], n: int, m: int) -> dict[str, Tensor]:
    """The `n` largest of every `m` inputs."""
    return {name: w * masks.top(w.abs(), n, (1, m)) for name, w in weights.items()}


def essential(sparsities: Sequence[float], score: np.ndarray, tolerance: float = 0.01) -> float:
    """The largest share up to which the score has never fallen by more than `tolerance` of the first one."""
    low = np.minimum.accumulate(score)
    return float(np.asarray(sparsities)[low >= score[0] - tolerance * abs(score[0])].max())


def bend(sparsities: Sequence[float], score: np.ndarray) -> float:
    """The share at which the curve is farthest above the line between its ends."""
    x = np.asarray(sparsities, dtype=float)
    line = score[0] + (score[-1] - score[0]) * (x - x[0]) / (x[-1] - x[0])
    return float(x[int(np.argmax(score - line))])
