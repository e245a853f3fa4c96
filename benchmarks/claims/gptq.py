"""Does error feedback beat the nearest number at equal bits, and what do refitted scales and the other side add?

    PYTHONPATH=src python -m benchmarks.claims.gptq

Ratios of KL at equal bits, groups of 128, on the linear layers of three of the model's blocks (the others stay as they
are: it is a ratio, and takes less time); a seed draws 32 calibration windows. `one-sided` and `two-sided` are
what `--round` calls so: the survey's statistics, scales refitted in their metric, errors fed back on one side or both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from torch import Tensor

from benchmarks import harness, patient
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import nearest
from secateur.maths.settle import settle
from secateur.methods.quantize.gptq import GPTQ, gptq
from secateur.model.factors import Factors

GROUP, SEEDS, WINDOWS, BLOCKS = 128, 5, 32, (1, 4, 7)


@cache
def weights() -> dict[str, Tensor]:
    inside = tuple(f".layers.{block}." for block in BLOCKS)
    return {name: w for name, w in patient.small().weights().items() if any(part in name for part in inside)}


@cache
def grams(seed: int) -> dict[str, Tensor]:
    return patient.small().grams(patient.small().draw(seed)[:WINDOWS])


@cache
def factors(seed: int) -> dict[str, Factors]:
    return patient.small().factors(patient.small().draw(seed)[:WINDOWS], seed)


def _settled(seed: int, name: str, w: Tensor, grid: Affine, sides: int) -> Tensor:
    one = factors(seed)[name]
    return settle(w, grid, one.a, one.g, sides=sides).values


ROUNDERS: dict[str, Callable[[int, str, Tensor, Affine], Tensor]] = {
    "nearest": lambda seed, name, w, grid: nearest(w, grid.fit(w)),
    "gptq": lambda seed, name, w, grid: gptq(w, grid, grams(seed)[name]).values,
    "act-order": lambda seed, name, w, grid: GPTQ(act_order=True)(w, grid, grams(seed)[name]).values,
    "one-sided": lambda seed, name, w, grid: _settled(seed, name, w, grid, 1),
    "two-sided": lambda seed, name, w, grid: _settled(seed, name, w, grid, 2),
}


@cache
def kl(rounder: str, bits: int, seed: int) -> float:
    """KL of the model with these layers rounded, nats per token."""
    grid = Affine(bits, GROUP)
    return patient.small().kl({name: ROUNDERS[rounder](seed, name, w, grid) for name, w in weights().items()})


#: who beats whom at how many bits
QUESTIONS = (
    ("gptq", "nearest", 3),
    ("gptq", "nearest", 2),
    ("gptq", "nearest", 4),
    ("act-order", "gptq", 3),
    ("one-sided", "gptq", 2),
    ("one-sided", "gptq", 3),
    ("two-sided", "one-sided", 2),
    ("two-sided", "one-sided", 3),
)


if __name__ == "__main__":
    about = {"model": patient.small().name, "group": GROUP, "tokens": patient.small().measuring.numel()}
    for ours, theirs, bits in QUESTIONS:

        def trial(seed: int, ours: str = ours, theirs: str = theirs, bits: int = bits) -> tuple[float, float]:
            return kl(ours, bits, seed), kl(theirs, bits, 0 if theirs == "nearest" else seed)

        harness.claim("gptq", f"{ours} beats {theirs}, {bits} bits", trial, SEEDS, about=about)
