"""Layers of a network that is about to become an ONNX graph, over matrices that say themselves how they are read."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Held(Protocol):
    """A stored matrix in the graph, as Microsoft's operators compute with it or as standard ones do."""

    def times(self, x: Tensor) -> Tensor:
        """The matrix times inputs [..., cols]."""
        ...

    def looked_up(self, ids: Tensor) -> Tensor:
        """Its rows of these numbers."""
        ...


class Multiply(nn.Module):
    """In place of a linear layer: x times the matrix, plus the bias."""

    def __init__(self, blocks: nn.Module, bias: nn.Module | None):
        super().__init__()
        self.blocks, self.bias = blocks, bias

    def forward(self, x: Tensor) -> Tensor:
        held: Held = self.blocks  # type: ignore[assignment]
        y = held.times(x)
        return y if self.bias is None else y + self.bias()


class Gather(nn.Module):
    """In place of an embedding: rows of the matrix, times `factor` where the network scales them (Gemma)."""

    def __init__(self, blocks: nn.Module, factor: Tensor | None = None):
        super().__init__()
        self.blocks, self.factor = blocks, factor

    def forward(self, ids: Tensor) -> Tensor:
        held: Held = self.blocks  # type: ignore[assignment]
        rows = held.looked_up(ids)
        return rows if self.factor is None else rows * self.factor
