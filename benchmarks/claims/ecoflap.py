"""Do shares by the slopes of the loss beat the same share in every block, with Wanda's mask in both?

    PYTHONPATH=src python -m benchmarks.claims.ecoflap

Ratios of KL at the same count of weights on small trained language models, one a seed; nothing is refitted. Slopes are
taken as in the paper: the whole loss on batches of text, weights moved along noise forwards and back.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from benchmarks import harness, tiny
from secateur.methods.prune.ecoflap import probed, shared

BATCHES = 4


@cache
def scene(seed: int):
    model = tiny.trained(seed)
    _, calibration, measuring = tiny.text()
    batch, own = tiny.windows(measuring, 64, 1000 + seed), tiny.windows(calibration, 64, seed)
    weights = {name: part.weight.data.float() for name, part in tiny.linears(model).items()}
    grams = {name: a.float() for name, a in tiny.grams(model, own).items()}
    return model, batch, tiny.logits(model, batch), weights, grams, own


@cache
def slopes(seed: int) -> dict[str, float]:
    model, *_, own = scene(seed)
    noise = torch.Generator().manual_seed(seed)
    losses = [lambda part=part: tiny.loss(tiny.logits(model, part), part) for part in own[: 4 * BATCHES].split(4)]
    return {name: probed(losses, part.weight.data, noise) for name, part in tiny.linears(model).items()}


@cache
def kl(seed: int, keep: float, by_slopes: bool) -> float:
    model, batch, reference, weights, grams, _ = scene(seed)
    of = tiny.by_block(weights)
    size = np.array([sum(weights[name].numel() for name in names) for names in of.values()], dtype=float)
    share = np.full(len(of), keep)
    if by_slopes:
        share = shared(np.array([sum(slopes(seed)[name] for name in names) for names in of.values()]), size, keep)
    put = tiny.by_wanda(weights, grams, dict(zip(of, share.tolist(), strict=True)))
    with tiny.wearing(model, put):
        return tiny.divergence(tiny.logits(model, batch), reference)


if __name__ == "__main__":
    for keep in (0.3, 0.5):

        def trial(seed: int, keep: float = keep) -> tuple[float, float]:
            return kl(seed, keep, True), kl(seed, keep, False)

        harness.claim("ecoflap", f"beats the same share in every block, {keep:.0%} of the weights kept", trial, seeds=5)
