"""Does a cascade of proxies find the examples of highest entropy at a part of the cost, and is it worth finding them?

    PYTHONPATH=src python -m benchmarks.claims.selectformer

Two thousand windows of 128 bytes of code, tables and prose before a network of eight blocks, trained on code, one a
seed. Proxies stop behind its first and its fourth block and are fitted on 200 windows at which all of it has looked:
the first looks at all and hands on 600, the second chooses 200. How many of those are among the 200 of highest entropy,
and the same of the first proxy alone, and of the second alone. In the end what learning from them is worth (30 steps):
the loss on other windows of the three kinds, against that after as many at random.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks import harness, kinds
from secateur.methods.data.selectformer import cascade, proxy
from secateur.parts.eyes import places
from secateur.parts.select import Room

KEEP, FIT, BLOCKS, COUNTS = 200, 200, 8, (1400, 400, 200)
STOPS = {"first": [1], "second": [4], "cascade": [1, 4]}
ABOUT: dict[str, Any] = {}
_pool = cache(lambda seed: kinds.pool(seed, COUNTS))


@cache
@torch.no_grad()
def states(seed: int) -> dict[int, Tensor]:
    """The mean states of every window behind the blocks at which a proxy stops."""
    pool, found = _pool(seed), {1: [], 4: []}
    for part in pool.windows.split(64):
        hidden = pool.model.model(part, output_hidden_states=True).hidden_states
        for stop, parts in found.items():
            parts.append(places(hidden[stop]))
    return {stop: torch.cat(parts) for stop, parts in found.items()}


@cache
def chosen(seed: int, how: str) -> Tensor:
    pool, draw = _pool(seed), torch.Generator().manual_seed(seed)
    n = len(pool.windows)
    room = Room(torch.ones(n, dtype=torch.long), KEEP, "examples", str(KEEP))
    known = torch.randperm(n, generator=draw)[:FIT].sort().values
    scorers = [proxy(states(seed)[stop].__getitem__, known, pool.entropy[known]) for stop in STOPS[how]]
    at, _, looked = cascade(scorers, [3 * KEEP] * (len(scorers) - 1), room)
    passes = FIT + sum(count * stop / BLOCKS for count, stop in zip(looked, STOPS[how], strict=True))
    ABOUT[f"{how}: passes of {n}"] = passes
    return at


def found(seed: int, how: str) -> float:
    """Of the windows of highest entropy the share that is among the chosen."""
    pool = _pool(seed)
    wanted = set(pool.entropy.topk(KEEP).indices.tolist())
    share = len(wanted & set(chosen(seed, how).tolist())) / KEEP
    ABOUT.setdefault(f"{how}: found", []).append(share)
    return share


def worth(seed: int) -> tuple[float, float]:
    pool = _pool(seed)
    at = torch.randperm(len(pool.windows), generator=torch.Generator().manual_seed(seed))[:KEEP]
    judged = torch.cat(kinds.others(pool.judged, seed))
    ours, chance = (
        kinds.loss_after(pool.model, pool.windows[one], judged, seed, 30) for one in (chosen(seed, "cascade"), at)
    )
    return ours, chance


if __name__ == "__main__":
    text = "Of the 10% of highest entropy two proxies in a row find more than the first alone"
    harness.claim(
        "selectformer", text, lambda s: (found(s, "cascade"), found(s, "first")), 5, better="higher", about=ABOUT
    )
    text = "They find more than the second alone, at 62% of its cost"
    harness.claim(
        "selectformer", text, lambda s: (found(s, "cascade"), found(s, "second")), 5, better="higher", about=ABOUT
    )
    text = "The mean loss over three kinds of text is lower after learning from them than from 10% at random"
    harness.claim("selectformer", text, worth, 3, about=ABOUT)
