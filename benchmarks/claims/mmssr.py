"""Is what learns from an even share of every style better on the whole than what learns from a tenth at random?

    PYTHONPATH=src python -m benchmarks.claims.mmssr

A thousand windows of 128 bytes, 700 of them code, 200 tables, 100 prose; a network a seed, trained on code alone, looks
at them and learns from the hundred that are kept (30 steps). Styles are nine clusters, ratings how unsure the network
is and how typical a window is of its cluster: nobody else has rated. Loss on other windows of the three kinds, nats per
byte, the mean over kinds, against that after a hundred at random and after the hundred of highest entropy.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks import harness, kinds
from secateur.maths.clustering import kmeans, scaled
from secateur.methods.data.mmssr import MmSSR, fifths, sample
from secateur.parts.select import Room
from secateur.parts.select.policies import top

ABOUT: dict[str, list[list[int]]] = {}


def chosen(pool: kinds.Pool, how: str, seed: int) -> Tensor:
    n, draw = len(pool.windows), torch.Generator().manual_seed(seed)
    room = Room(torch.ones(n, dtype=torch.long), 100, "examples", "100")
    if how == "random":
        return torch.randperm(n, generator=draw)[: room.most]
    if how == "entropy":
        return top(pool.entropy, room)
    even = scaled(pool.vectors)
    centres, group = kmeans(even, MmSSR().groups, draw)
    ratings = torch.stack([fifths(pool.entropy), fifths(-(even - centres[group]).norm(dim=1))], 1)
    return sample(ratings, one_hot(group).bool(), room)


@cache
def loss(seed: int, how: str) -> float:
    pool = kinds.pool(seed)
    at = chosen(pool, how, seed)
    ABOUT.setdefault(f"{how}: code, tables, prose", []).append(torch.bincount(pool.kinds[at], minlength=3).tolist())
    judged = torch.cat(kinds.others(pool.judged, seed))
    return kinds.loss_after(pool.model, pool.windows[at], judged, seed, 30)


if __name__ == "__main__":
    for how, said in (("random", "10% at random"), ("entropy", "the 10% of highest entropy")):

        def trial(seed: int, how: str = how) -> tuple[float, float]:
            return loss(seed, "mmssr"), loss(seed, how)

        text = f"The mean loss over three kinds of text is lower after an even share of nine clusters than after {said}"
        harness.claim("mmssr", text, trial, seeds=5, about=ABOUT)
