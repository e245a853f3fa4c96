"""Batch normalisations of a network that has been changed: their statistics anew, for good or for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur.model.coupled import NORMS


@torch.no_grad()
def renew(network: nn.Module, batches: Sequence[Tensor]) -> None:
    """Mean and variance of every batch normalisation anew, as their means over batches of inputs."""
    norms = _norms(network)
    before = [(norm, norm.momentum, norm.training) for norm in norms]
    try:
        for norm in norms:
            norm.train()
        for at, batch in enumerate(batches, 1):
            for norm in norms:
                norm.momentum = 1.0 / at
            network(batch)
    finally:
        for norm, momentum, mode in before:
            norm.momentum, norm.training = momentum, mode


@contextmanager
def renewed(network: nn.Module, batches: Sequence[Tensor]) -> Iterator[None]:
    """Inside, normalisations have statistics of these batches; afterwards their own. A slice has other ones than the
    whole network: `with sliced(...), renewed(...)`."""
    kept = [(buffer, buffer.clone()) for norm in _norms(network) for buffer in norm.buffers()]
    try:
        renew(network, batches)
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)


def normalised(network: nn.Module) -> bool:
    """Whether a slice of it needs statistics of its own."""
    return bool(_norms(network))


def _norms(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, NORMS)]
