"""Which channel of one network does the work of which channel of another: permutations that lay them side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def matched(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """For every channel of `reference` the one of `other` that stands in its place, [channels].

    Both hold the same matrices, a channel a row: [channels, inputs] as they are, [outputs, channels] turned round. The
    sum of inner products of channels that meet is the largest there is (Hungarian assignment).

    >>> matched([torch.eye(3)], [torch.eye(3)[[2, 0, 1]]]).tolist()
    [1, 2, 0]
    """
    alike = sum(a.double() @ b.double().mT for a, b in zip(reference, other, strict=True))
    assert isinstance(alike, Tensor)
    return torch.from_numpy(linear_sum_assignment(alike.cpu().numpy(), maximize=True)[1])


def cosines(gram: Tensor) -> Tensor:
    """Cosines of the angles between things whose inner products are `gram` [n, n]; what is zero is like nothing."""
    sizes = gram.diagonal().clamp_min(0.0).sqrt()
    return gram / (sizes[:, None] * sizes).clamp_min(torch.finfo(gram.dtype).tiny)
