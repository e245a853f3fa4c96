"""Does a network learn a kind of text better from what resembles twenty examples of it than from as many at random?

    PYTHONPATH=src python -m benchmarks.claims.simcore

A thousand windows of 128 bytes, a tenth of them prose, the rest code and tables; a network a seed, trained on code
alone, looks at them and learns from the hundred that are kept. Loss on other prose, nats per byte, against that after
learning from a hundred at random; then against a hundred nearest to the mean of the twenty; and how much of what is
kept is prose where half of the pool might be kept and the stop rule may end it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from benchmarks import harness, kinds
from secateur.methods.data.simcore import SimCore
from secateur.parts.select import Room

KEEP = 100
ABOUT: dict[str, list[float]] = {}
_pool = cache(kinds.pool)


def chosen(seed: int, method: SimCore, most: int = KEEP) -> Tensor:
    pool = _pool(seed)
    room = Room(torch.ones(len(pool.windows), dtype=torch.long), most, "examples", str(most))
    return method.choose(pool.target_vectors, pool.vectors, room, torch.Generator().manual_seed(seed)).at


def by_chance(seed: int) -> Tensor:
    return torch.randperm(len(_pool(seed).windows), generator=torch.Generator().manual_seed(seed))[:KEEP]


@cache
def loss(seed: int, how: str) -> float:
    pool = _pool(seed)
    at = by_chance(seed) if how == "random" else chosen(seed, SimCore(1 if how == "mean" else 100, stop=False))
    ABOUT.setdefault(f"{how}: share of prose", []).append(round(share(seed, at), 3))
    return kinds.loss_after(pool.model, pool.windows[at], pool.judged, seed)


def share(seed: int, at: Tensor) -> float:
    return float((_pool(seed).kinds[at] == kinds.PROSE).double().mean())


def stopped(seed: int) -> tuple[float, float]:
    """With the stop rule, and without: half of the pool may be kept, a tenth is wanted."""
    both = [chosen(seed, SimCore(patience=3, stop=stop), 500) for stop in (True, False)]
    ABOUT.setdefault("stopped: kept", []).append(len(both[0]))
    wanted = int((_pool(seed).kinds == kinds.PROSE).sum())
    ABOUT.setdefault("stopped: of the prose", []).append(round(share(seed, both[0]) * len(both[0]) / wanted, 3))
    return share(seed, both[0]), share(seed, both[1])


if __name__ == "__main__":
    what = "of prose after learning from the 10% that resemble twenty examples of it is lower than from"
    for how, said in (("random", "10% at random"), ("mean", "the 10% nearest to their mean")):

        def trial(seed: int, how: str = how) -> tuple[float, float]:
            return loss(seed, "simcore"), loss(seed, how)

        harness.claim("simcore", f"The loss {what} {said}", trial, seeds=5, about=ABOUT)
    text = "Where half might be kept and a tenth is wanted, the stop rule keeps a larger share of what is wanted"
    harness.claim("simcore", text, stopped, seeds=5, better="higher", about=ABOUT)
