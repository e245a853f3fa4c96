"""Do shares tilted by outliers beat the same share in every block, with Wanda's mask in both?

    PYTHONPATH=src python -m benchmarks.claims.owl

Ratios of KL at the same count of weights on small trained language models, one a seed; nothing is refitted. These
models have few outliers; the card says what comes of it on `lm-small`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from benchmarks import harness, tiny
from secateur.methods.prune.owl import outliers, tilts

SPREAD, M = 0.08, 3.0


@cache
def scene(seed: int):
    model = tiny.trained(seed)
    _, calibration, measuring = tiny.text()
    batch = tiny.windows(measuring, 64, 1000 + seed)
    weights = {name: part.weight.data.float() for name, part in tiny.linears(model).items()}
    grams = {name: a.float() for name, a in tiny.grams(model, tiny.windows(calibration, 64, seed)).items()}
    return model, batch, tiny.logits(model, batch), weights, grams


@cache
def kl(seed: int, keep: float, tilted: bool) -> float:
    model, batch, reference, weights, grams = scene(seed)
    of = tiny.by_block(weights)
    seen = [[(weights[name], grams[name].diagonal().sqrt()) for name in names] for names in of.values()]
    size = np.array([sum(weights[name].numel() for name in names) for names in of.values()], dtype=float)
    tilt = tilts(np.array([outliers(one, M) for one in seen]), size, SPREAD) if tilted else np.zeros(len(of))
    put = tiny.by_wanda(weights, grams, dict(zip(of, (keep + tilt).tolist(), strict=True)))
    with tiny.wearing(model, put):
        return tiny.divergence(tiny.logits(model, batch), reference)


if __name__ == "__main__":
    for keep in (0.3, 0.5):

        def trial(seed: int, keep: float = keep) -> tuple[float, float]:
            return kl(seed, keep, True), kl(seed, keep, False)

        harness.claim("owl", f"beats the same share in every block, {keep:.0%} of the weights kept", trial, seeds=5)
