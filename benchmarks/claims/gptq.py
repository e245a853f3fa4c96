"""Does error feedback beat the nearest number at equal bits, and what do refitted scales and the other side add?

    PYTHONPATH=src python -m benchmarks.claims.gptq

Ratios of KL at equal bits, groups of 128; a seed draws the calibration windows. `one-sided` and `two-sided` are what
`--round` calls so: the survey's statistics, scales refitted in their metric, errors fed back along one side or both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from benchmarks import harness, patient
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import nearest
from secateur.maths.settle import settle
from secateur.methods.quantize.gptq import GPTQ, gptq

GROUP, SEEDS = 128, 5


@cache
def grams(seed: int) -> dict[str, Tensor]:
    return patient.small().grams(patient.small().draw(seed))


@cache
def factors(seed: int) -> dict[str, Any]:
    return patient.small().factors(patient.small().draw(seed), seed)


def _settled(seed: int, name: str, w: Tensor, grid: Affine, sides: int) -> Tensor:
    one = factors(seed)[name]
    return settle(w, grid, one.a, one.g, sides=sides).values


def _nearest(w: Tensor, grid: Affine) -> Tensor:
    return nearest(w, grid.fit(w))


ROUNDERS: dict[str, Callable[[int, str, Tensor, Affine], Tensor]] = {
    "nearest": lambda seed, name, w, grid: _nearest(w, grid),
    "gptq": lambda seed, name, w, grid: gptq(w, grid, grams(seed)[name]).values,
    "act-order": lambda seed, name, w, grid: GPTQ(act_order=True)(w, grid, grams(seed)[name]).values,
    "one-sided": lambda seed, name, w, grid: _settled(seed, name, w, grid, 1),
    "two-sided": lambda seed, name, w, grid: _settled(seed, name, w, grid, 2),
}


@cache
def kl(rounder: str, bits: int, seed: int) -> float:
    """KL of the model with every linear layer of its blocks rounded, nats per token."""
    one, grid = patient.small(), Affine(bits, GROUP)
    return one.kl({name: ROUNDERS[rounder](seed, name, w, grid) for name, w in one.weights().items()})


#: who beats whom at how many bits
QUESTIONS = (
    [("gptq", "nearest", bits) for bits in (2, 3, 4)]
    + [("act-order", "gptq", bits) for bits in (2, 3, 4)]
    + [("one-sided", "gptq", bits) for bits in (2, 3, 4)]
    + [("two-sided", "gptq", bits) for bits in (2, 3, 4)]
)


if __name__ == "__main__":
    about = {"model": patient.small().name, "group": GROUP, "tokens": patient.small().measuring.numel()}
    for ours, theirs, bits in QUESTIONS:

        def trial(seed: int, ours: str = ours, theirs: str = theirs, bits: int = bits) -> tuple[float, float]:
            return kl(ours, bits, seed), kl(theirs, bits, 0 if theirs == "nearest" else seed)

        harness.claim("gptq", f"{ours} beats {theirs}, {bits} bits", trial, SEEDS, about=about)
    for rounder in ROUNDERS:
        row = [[kl(rounder, bits, seed) for seed in range(1 if rounder == "nearest" else SEEDS)] for bits in (2, 3, 4)]
        print(rounder, [f"{sum(kls) / len(kls):.5f}" for kls in row], file=sys.stderr)
