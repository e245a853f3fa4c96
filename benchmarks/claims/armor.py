"""What do trained wrappers add to a 2:4 mask, and is it more than the numbers that they take?

    PYTHONPATH=src python -m benchmarks.claims.armor

KL to the original of tiny trained models (one a seed) whose linear layers inside the blocks are cut, blocks of 8, 60
steps; h from 96 windows. First against its own start, NoWag-P: 2:4 without wrappers. Then against as many numbers: the
wrappers take 20% to 25% here (6% at width 4096 with blocks of 128), so weights are taken one by one by Wanda's score
until as many numbers are left in every matrix.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from benchmarks import harness, tiny
from secateur.maths.wrapped import Wrapped, Wrapping
from secateur.methods.factorize.armor import nowag

BLOCK, STEPS, RATE = 8, 60, 0.01
ABOUT: dict[str, list[float]] = {"numbers left": []}


@cache
def kls(seed: int) -> dict[str, float]:
    """KL by rule, nats per token."""
    model = tiny.trained(seed)
    calibrate, measure = (tiny.windows(stream, 96, 2000 + seed) for stream in tiny.text()[1:])
    grams, weights = tiny.grams(model, calibrate), tiny.linears(model)
    before = tiny.logits(model, measure)
    cut: dict[str, dict[str, Tensor]] = {"armor": {}, "nowag": {}, "wanda": {}}
    held = 0
    for name, part in weights.items():
        w, h = part.weight.data.float(), grams[name].diagonal().float()
        random = torch.Generator().manual_seed(seed)
        wrapped: Wrapped = Wrapping(BLOCK, STEPS, RATE)(w, h, random)
        held += wrapped.numbers
        score = w.square() * h
        least = score.flatten().kthvalue(w.numel() - wrapped.numbers).values
        cut["armor"][name] = wrapped.values
        cut["nowag"][name] = nowag(w, h, BLOCK).values
        cut["wanda"][name] = w * (score > least)
    ABOUT["numbers left"].append(round(held / sum(part.weight.numel() for part in weights.values()), 3))
    found = {}
    for rule, matrices in cut.items():
        with tiny.wearing(model, matrices):
            found[rule] = tiny.divergence(tiny.logits(model, measure), before)
    return found


def against(other: str):
    return lambda seed: (kls(seed)["armor"], kls(seed)[other])


if __name__ == "__main__":
    harness.claim(
        "armor", "wrappers diverge less than the same 2:4 mask's start without", against("nowag"), 3, about=ABOUT
    )
    text = "a wrapped 2:4 core diverges less than as many numbers taken one by one"
    harness.claim("armor", text, against("wanda"), 3, about=ABOUT)
