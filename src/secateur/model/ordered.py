"""A network that has learned, with what matters most first: the same function, its channels and heads in another order.

A slice keeps the first so many, and a network that nobody trained for it has them in an order of chance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.model.elastic import Group, Lane, Supernet


@torch.no_grad()
def put_in_order(network: nn.Module, net: Supernet) -> None:
    """Permute the units of every group, in place, those of the largest `weight` first; ties keep their order.

    Only the order of sums changes: outputs differ in the last bits.
    """
    for group in net.groups:
        order = weight(network, group).argsort(descending=True, stable=True)
        for lane in group.lanes:
            value = _tensor(network, lane.tensor)
            value.copy_(value.index_select(lane.dim, _places(lane, group.n, order).to(value.device)))


def weight(network: nn.Module, group: Group) -> Tensor:
    """How much each unit of a group weighs, [n]: the logarithm of the product of the squared norms of its rows and
    columns in every matrix, which no scaling of one layer against the next can change."""
    total = torch.zeros(group.n, dtype=torch.float64)
    for lane in group.lanes:
        value = _tensor(network, lane.tensor).detach().double().cpu()
        if value.dim() > 1:
            squares = value.movedim(lane.dim, 0).flatten(1).square().sum(1)
            sections = squares.split([group.n * per for per in lane.per])
            norms = torch.stack([one.view(group.n, -1).sum(1) for one in sections]).sum(0)
            total += norms.clamp_min(1e-300).log()
    return total


def _places(lane: Lane, n: int, units: Tensor) -> Tensor:
    """Where these units lie along a lane, section after section."""
    starts = [n * sum(lane.per[:at]) for at in range(len(lane.per))]
    some = zip(starts, lane.per, strict=True)
    return torch.cat([start + (units[:, None] * per + torch.arange(per)).flatten() for start, per in some])


def _tensor(network: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    return getattr(network.get_submodule(path), leaf)
