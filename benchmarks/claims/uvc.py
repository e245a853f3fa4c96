"""Do prices that climb find better counts than the same share in every block, and how near are they to the best?

    PYTHONPATH=src python -m benchmarks.claims.uvc

First: heads and MLP neurons of a tiny trained model (one a seed) go until 75% of its blocks' FLOPs are left, without
any training; KL to the original, counts by UVC's prices against the same share of every group, each group's smallest
energies first in both. Second: expected damage on made menus of 60 units and 8 edits, against one limit on every unit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks import harness, rules, tiny
from secateur.methods.allocate.uvc import drop, energies, uvc
from secateur.parts import allocate
from secateur.types import Budget

LEFT, READERS = 0.75, ("o_proj", "down_proj")
ABOUT: dict[str, Any] = {"FLOPs left": LEFT, "over the best": []}


def without(model: Any, share: float, by_prices: bool) -> dict[str, Tensor]:
    """The matrices that read heads and neurons, with the columns of those that go as zeros."""
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    readers = {
        name: part.weight.data for name, part in tiny.linears(model).items() if name[-6:] in ("o_proj", "n_proj")
    }
    per = {name: width // heads if name.endswith("o_proj") else 1 for name in readers}
    energy = {name: energies(w, per[name]).numpy() for name, w in readers.items()}
    cost = [4.0 * width * width // heads if name.endswith("o_proj") else 3.0 * width for name in readers]
    if by_prices:
        whole = sum(len(one) * each for one, each in zip(energy.values(), cost, strict=True))
        gone = drop(list(energy.values()), cost, share * whole)
    else:
        gone = [math.ceil((1 - share) * len(one)) for one in energy.values()]
    out = {}
    for n, (name, w) in zip(gone, readers.items(), strict=True):
        columns = np.repeat(
            np.isin(np.arange(len(energy[name])), np.argsort(energy[name], kind="stable")[:n]), per[name]
        )
        out[name] = w.clone()
        out[name][:, columns] = 0
    return out


def trial(seed: int) -> tuple[float, float]:
    model, measure = tiny.trained(seed), tiny.windows(tiny.text()[2], 96, 2000 + seed)
    before, found = tiny.logits(model, measure), []
    for by_prices in (True, False):
        with tiny.wearing(model, without(model, LEFT, by_prices)):
            found.append(tiny.divergence(tiny.logits(model, measure), before))
    return found[0], found[1]


def on_menus(seed: int) -> tuple[float, float]:
    menu, budget = rules.made(60, 8, seed), Budget.parse(f"{2.75 + 0.25 * (seed % 8)} bits/weight")
    ours = uvc(menu, budget).damage
    ABOUT["over the best"].append(round(ours / allocate.find("lagrange")(menu, budget).damage, 4))
    return ours, rules.threshold(menu, budget).damage


if __name__ == "__main__":
    text = "heads and neurons by prices diverge less than the same share of every group, 75% of the FLOPs, untrained"
    harness.claim("uvc", text, trial, seeds=5, about=ABOUT)
    harness.claim("uvc", "less damage than one limit on every unit, on made menus", on_menus, seeds=16, about=ABOUT)
