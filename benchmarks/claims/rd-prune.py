"""Do levels solved from measured curves beat the same level everywhere and one global ranking, by size in all three?

    PYTHONPATH=src python -m benchmarks.claims.rd-prune

Ratios of KL at the same count of weights on small trained language models, one a seed; nothing is refitted. Curves are
mean squared distances of the logits, each layer pruned alone, on a few calibration windows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from torch import Tensor

from benchmarks import harness, tiny
from secateur.maths import masks
from secateur.methods.prune.rd_prune import allocated, curves, pruned

KEEPS, WINDOWS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1), 4


@cache
def scene(seed: int):
    model = tiny.trained(seed)
    _, calibration, measuring = tiny.text()
    batch, own = tiny.windows(measuring, 64, 1000 + seed), tiny.windows(calibration, WINDOWS, seed)
    weights = {name: part.weight.data.float() for name, part in tiny.linears(model).items()}

    def outputs(put: dict[str, Tensor]) -> Tensor:
        with tiny.wearing(model, put):
            return tiny.logits(model, own)

    return model, batch, tiny.logits(model, batch), weights, curves(outputs, weights, KEEPS)


@cache
def kl(seed: int, keep: float, way: str) -> float:
    model, batch, reference, weights, curve = scene(seed)
    size = np.array([w.numel() for w in weights.values()], dtype=float)
    if way == "global":
        every = masks.top_together([w.abs() for w in weights.values()], masks.count(keep, int(size.sum())))
        put = {name: w * mask for (name, w), mask in zip(weights.items(), every, strict=True)}
    else:
        levels = allocated(curve, size, KEEPS, keep) if way == "curves" else np.full(len(size), keep)
        put = {name: pruned(w, level) for (name, w), level in zip(weights.items(), levels, strict=True)}
    with tiny.wearing(model, put):
        return tiny.divergence(tiny.logits(model, batch), reference)


if __name__ == "__main__":
    for theirs, keep in (("uniform", 0.5), ("global", 0.5), ("uniform", 0.3), ("global", 0.3)):

        def trial(seed: int, theirs: str = theirs, keep: float = keep) -> tuple[float, float]:
            return kl(seed, keep, "curves"), kl(seed, keep, theirs)

        harness.claim("rd-prune", f"beats {theirs}, {keep:.0%} of the weights kept", trial, seeds=5)
