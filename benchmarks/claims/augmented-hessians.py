"""Does it pay to know what layers lose together, and what does the rule lose against a knapsack?

    PYTHONPATH=src python -m benchmarks.claims.augmented-hessians

First: the eight blocks of a tiny trained model (one a seed) go from 4 to 3 and 2 bits (nearest, groups of 64) while the
KL to the original keeps below a third of what 2 bits everywhere damage. Mean bits with scores that know all pairs, over
mean bits with the single damages alone. Second: expected damage on made menus, over our plan's.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
from torch import Tensor

from benchmarks import harness, rules, tiny
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import nearest
from secateur.methods.allocate.augmented_hessians import augmented, augmented_hessians, dependencies, widths
from secateur.parts import allocate
from secateur.types import Budget

BITS, GROUP, BLOCKS = (4, 3, 2), 64, 8
ABOUT: dict[str, list[object]] = {"bits": [], "largest pair over largest single": []}


def trial(seed: int) -> tuple[float, float]:
    model, measure = tiny.trained(seed), tiny.windows(tiny.text()[2], 24, 2000 + seed)
    before = tiny.logits(model, measure)
    weights = {name: part.weight.data for name, part in tiny.linears(model).items()}

    @cache
    def matrix(name: str, bits: int) -> Tensor:
        return nearest(weights[name], Affine(bits, GROUP).fit(weights[name]))

    @cache
    def loss(chosen: tuple[int, ...]) -> float:
        """KL with each block at its width; -1 leaves one as it is."""
        cut = {
            name: matrix(name, BITS[chosen[block]])
            for name in weights
            if chosen[block := int(name.split(".layers.")[1].split(".")[0])] >= 0
        }
        with tiny.wearing(model, cut):
            return tiny.divergence(tiny.logits(model, measure), before)

    def alone(some: tuple[int, ...], width: int) -> float:
        return loss(tuple(width if block in some else -1 for block in range(BLOCKS)))

    limit = loss((len(BITS) - 1,) * BLOCKS) / 3
    pairs, plain, known = list(combinations(range(BLOCKS), 2)), [], []
    for width in range(len(BITS)):
        h = np.array([alone((block,), width) for block in range(BLOCKS)])
        e = dependencies(lambda some, width=width: alone(tuple(some), width), BLOCKS, pairs if width else [])
        plain.append(h)
        known.append(augmented(h, e))
    ABOUT["largest pair over largest single"].append(round(float(np.abs(e).max() / h.max()), 3))
    found = [widths(score, lambda some: loss(tuple(some.tolist())) <= limit) for score in (known, plain)]
    bits = [float(np.mean([BITS[w] for w in some])) for some in found]
    ABOUT["bits"].append(bits)
    return bits[0], bits[1]


def on_menus(seed: int) -> tuple[float, float]:
    menu, budget = rules.made(60, 8, seed), Budget.parse(f"{2.75 + 0.25 * (seed % 8)} bits/weight")
    return augmented_hessians(menu, budget).damage, allocate.find("lagrange")(menu, budget).damage


if __name__ == "__main__":
    text = "scores that know what blocks lose together need fewer bits at the same limit on the KL"
    harness.claim("augmented-hessians", text, trial, seeds=3, about=ABOUT)
    harness.claim("augmented-hessians", "as little damage as a knapsack, on made menus", on_menus, seeds=16)
