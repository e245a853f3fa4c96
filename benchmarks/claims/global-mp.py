"""Does one ranking of all layers beat the same share in every layer, by size alone, and does the floor help?

    PYTHONPATH=src python -m benchmarks.claims.global-mp

Ratios of KL at the same count of weights on small trained language models, one a seed; nothing is refitted.
"""

from __future__ import annotations

from functools import cache

from torch import Tensor

from benchmarks import harness, tiny
from secateur.maths import masks
from secateur.methods.prune.global_mp import kept

FLOOR = 5e-4


@cache
def scene(seed: int):
    model = tiny.trained(seed)
    batch = tiny.windows(tiny.text()[2], 64, 1000 + seed)
    weights = {name: part.weight.data.float() for name, part in tiny.linears(model).items()}
    return model, batch, tiny.logits(model, batch), weights


def pruned(seed: int, keep: float, way: str) -> dict[str, Tensor]:
    weights = scene(seed)[3]
    if way == "uniform":
        return {name: w * masks.top(w.abs(), masks.count(keep, w.numel())) for name, w in weights.items()}
    least = round(FLOOR * sum(w.numel() for w in weights.values())) if way == "floor" else 0
    return {name: weights[name] * mask for name, mask in kept(weights, keep, least).items()}


@cache
def kl(seed: int, keep: float, way: str) -> float:
    model, batch, reference, _ = scene(seed)
    with tiny.wearing(model, pruned(seed, keep, way)):
        return tiny.divergence(tiny.logits(model, batch), reference)


#: who against whom at which share
QUESTIONS = (("global", "uniform", 0.5), ("global", "uniform", 0.3), ("floor", "global", 0.05))


if __name__ == "__main__":
    for ours, theirs, keep in QUESTIONS:

        def trial(seed: int, ours: str = ours, theirs: str = theirs, keep: float = keep) -> tuple[float, float]:
            return kl(seed, keep, ours), kl(seed, keep, theirs)

        harness.claim("global-mp", f"{ours} beats {theirs}, {keep:.0%} of the weights kept", trial, seeds=5)
