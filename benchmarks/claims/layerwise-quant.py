"""Is LIM's order of blocks better than no order? Half of eight blocks at 4 bits, half at 2, rounded to nearest.

    PYTHONPATH=src python -m benchmarks.claims.layerwise-quant

The effect is the rise of the loss with LIM's order over the mean rise of ten random orders, a trained model a seed.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import torch

from benchmarks import harness, tiny
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import nearest
from secateur.methods.quantize.layerwise_quant import lim, zd

HIGH, LOW, GROUP = 4, 2, 32


def trial(seed: int) -> tuple[float, float]:
    model = tiny.trained(seed)
    _, calibration, measuring = tiny.text()
    calibrate, measure = (tiny.windows(stream, 96, 1000 + seed) for stream in (calibration, measuring))
    rounded = {
        bits: {
            name: nearest(part.weight.data.float(), Affine(bits, GROUP).fit(part.weight.data.float()))
            for name, part in tiny.linears(model).items()
        }
        for bits in (HIGH, LOW)
    }
    before = tiny.loss(tiny.logits(model, measure), measure)

    def rise(order: list[int], top: int) -> float:
        """How much the loss rises when the first `top` blocks of the order are high and the rest low."""
        high = {f".layers.{block}." for block in order[:top]}
        weights = {name: rounded[HIGH if any(part in name for part in high) else LOW][name] for name in rounded[LOW]}
        with tiny.wearing(model, weights):
            return tiny.loss(tiny.logits(model, measure), measure) - before

    blocks = len(model.model.layers)
    top, draw = blocks // 2, np.random.default_rng(seed)
    by_lim = order_by_lim(model, calibrate)
    by_zd = sorted(
        range(blocks), key=lambda b: zd([p.weight for n, p in tiny.linears(model).items() if f".layers.{b}." in n])
    )
    random = [rise(draw.permutation(blocks).tolist(), top) for _ in range(10)]
    # what the general allocator would see: the damage of lowering each block alone, measured
    alone = {b: rise([block for block in range(blocks) if block != b], blocks - 1) for b in range(blocks)}
    measured = sorted(range(blocks), key=lambda b: -alone[b])
    found = {"lim": rise(by_lim, top), "zd": rise(by_zd, top), "reversed": rise(by_lim[::-1], top)}
    found |= {"random": float(np.mean(random)), "measured": rise(measured, top), "all high": rise(by_lim, blocks)}
    for name, value in found.items():
        ABOUT.setdefault(name, []).append(round(value, 5))
    return found["lim"], found["random"]


ABOUT: dict[str, list[float]] = {}


@torch.no_grad()
def order_by_lim(model, batch: torch.Tensor) -> list[int]:
    """Blocks, the most important first."""
    states = model(batch, output_hidden_states=True).hidden_states
    # the last state is normalised: the block's own output comes from a hook
    last: list[torch.Tensor] = []
    handle = model.model.layers[-1].register_forward_hook(
        lambda _m, _i, out: last.append(out[0] if isinstance(out, tuple) else out)
    )
    model(batch)
    handle.remove()
    states = [*states[:-1], last[0]]
    scores = [lim(a, b) for a, b in pairwise(states)]
    return sorted(range(len(scores)), key=lambda b: (-scores[b], b))


if __name__ == "__main__":
    text = f"LIM's order of blocks beats random orders, half at {HIGH} bits and half at {LOW}"
    harness.claim("layerwise-quant", text, trial, seeds=5, about=ABOUT)
    mean = {name: round(float(np.mean(values)), 4) for name, values in ABOUT.items()}
    print(f"mean rise of the loss, nats per token: {mean}", file=sys.stderr)
