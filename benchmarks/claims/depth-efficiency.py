"""Do interventions say which layers can go? Two of eight blocks dropped: those of least effect against two at random.

    PYTHONPATH=src python -m benchmarks.claims.depth-efficiency

The effect is the rise of the loss without the two blocks whose absence moves the predictions least (mean over
positions) over the mean rise of ten random pairs, a trained model a seed. Beside it: the relative contribution as a
rank, and the paper's largest change in place of the mean.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

import numpy as np
import torch

from benchmarks import harness, tiny
from secateur.methods.probe.depth_efficiency import effects, skipped, trace

GONE = 2
ABOUT: dict[str, list[float]] = {}


@torch.no_grad()
def trial(seed: int) -> tuple[float, float]:
    model = tiny.trained(seed)
    _, calibration, measuring = tiny.text()
    seen, measure = (tiny.windows(stream, n, 1000 + seed) for stream, n in ((calibration, 16), (measuring, 64)))
    blocks = model.model.layers
    before = tiny.loss(tiny.logits(model, measure), measure)

    def rise(order: np.ndarray) -> float:
        """Without the first blocks of an order, at every position but the first."""
        with ExitStack() as stack:
            for block in order[:GONE]:
                stack.enter_context(skipped(blocks[int(block)]))
            return tiny.loss(tiny.logits(model, measure), measure) - before

    found = {
        "least effect on the output": effects(model, blocks, seen, over="mean").output,
        "least effect, largest over positions": effects(model, blocks, seen).output,
        "least contribution": trace(model, blocks, [("self_attn", "mlp")] * len(blocks), seen).block,
    }
    rises = {name: rise(np.argsort(score.numpy(), kind="stable")) for name, score in found.items()}
    draw = np.random.default_rng(seed)
    rises["random"] = float(np.mean([rise(draw.permutation(len(blocks))) for _ in range(10)]))
    alone = [rise(np.array([b])) for b in range(len(blocks))]
    rises["each dropped alone and measured"] = rise(np.argsort(alone, kind="stable"))
    for name, value in rises.items():
        ABOUT.setdefault(name, []).append(round(value, 5))
    return rises["least effect on the output"], rises["random"]


if __name__ == "__main__":
    text = f"Dropping the {GONE} of 8 blocks of least effect on the predictions costs less than dropping random ones"
    harness.claim("depth-efficiency", text, trial, seeds=5, about=ABOUT)
    mean = {name: round(float(np.mean(values)), 4) for name, values in ABOUT.items()}
    print(f"mean rise of the loss, nats per token: {mean}", file=sys.stderr)
