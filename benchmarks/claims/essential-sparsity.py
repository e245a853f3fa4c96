"""How many more weights can go by size than at random before the loss has risen by 1%, all layers ranked together?

    PYTHONPATH=src python -m benchmarks.claims.essential-sparsity

Differences of the essential sparsity (a share of the weights) on small trained language models, one a seed.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from benchmarks import harness, tiny
from secateur.methods.prune.essential_sparsity import bend, essential, swept

SHARES = tuple(at / 20 for at in range(20))


@cache
def curve(seed: int, way: str):
    """Minus the loss at every share."""
    model = tiny.trained(seed)
    batch = tiny.windows(tiny.text()[2], 32, 1000 + seed)
    weights = {name: part.weight.data.float() for name, part in tiny.linears(model).items()}
    noise = torch.Generator().manual_seed(seed)

    def score(put: dict[str, Tensor]) -> float:
        with tiny.wearing(model, put):
            return -tiny.loss(tiny.logits(model, batch), batch)

    return swept(score, weights, SHARES, torch.abs if way == "size" else lambda w: torch.rand(w.shape, generator=noise))


ABOUT: dict[str, list[float]] = {"essential, by size": [], "bend, by size": []}


def trial(seed: int) -> tuple[float, float]:
    by_size, at_random = curve(seed, "size"), curve(seed, "random")
    ABOUT["essential, by size"].append(essential(SHARES, by_size))
    ABOUT["bend, by size"].append(bend(SHARES, by_size))
    return essential(SHARES, by_size), essential(SHARES, at_random)


if __name__ == "__main__":
    text = "more weights can go by size than at random before the loss has risen by 1%"
    harness.claim("essential-sparsity", text, trial, seeds=5, measure="difference", better="higher", about=ABOUT)
