"""From scores to a choice: the top, what lies above a threshold, a quota for every group, a draw by weight.

All take `scores` [examples], higher is rather kept, and a `Room`; all give places, none twice, and never more than
there is room for. Equal scores keep the order of the pool; NaN comes last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.parts.select import Room


def ranked(scores: Tensor) -> Tensor:
    """Places from the highest score to the lowest."""
    return scores.double().nan_to_num(nan=-torch.inf, neginf=-torch.inf).argsort(descending=True, stable=True)


def top(scores: Tensor, room: Room) -> Tensor:
    """The highest, as many as there is room for."""
    return room.first(ranked(scores))


def above(scores: Tensor, room: Room, threshold: float) -> Tensor:
    """The highest of those above a threshold."""
    order = ranked(scores)
    return room.first(order[scores[order] > threshold])


def quota(scores: Tensor, groups: Tensor, room: Room) -> Tensor:
    """The top of every group [examples], each with the same share of the room; what a small one leaves goes to those
    after it, from the smallest to the largest."""
    sizes = torch.bincount(groups)
    order = [int(g) for g in sizes.argsort(stable=True) if sizes[g]]
    taken: list[Tensor] = []
    left = room.most
    for at, group in enumerate(order):
        mine = (groups == group).nonzero()[:, 0]
        share = left // (len(order) - at)
        some = mine[Room(room.cost[mine], share, room.unit, room.asked).first(ranked(scores[mine]))]
        taken.append(some)
        left -= room.used(some)
    chosen = torch.cat(taken)
    rest = torch.ones(len(scores), dtype=torch.bool)
    rest[chosen] = False
    more = ranked(torch.where(rest, scores.double(), -torch.inf))[: int(rest.sum())]
    return torch.cat([chosen, Room(room.cost, left, room.unit, room.asked).first(more)])


def sampled(weights: Tensor, room: Room, random: torch.Generator) -> Tensor:
    """A draw without putting back, each with a chance in proportion to its weight (Efraimidis and Spirakis, 2006).

    What weighs nothing comes after everything that weighs something.
    """
    draw = torch.rand(len(weights), generator=random, dtype=torch.float64).clamp_min(1e-300).log()
    return top(draw / weights.double().clamp_min(1e-300), room)
