"""Any layer as rows x cols (outputs x inputs): linear, transposed, embedding, convolution, or one expert of many.

A place names where the network keeps a matrix: `parameter`, then `#expert` when the parameter is a stack of experts,
then `[start:stop]` when the matrix is only some of the rows: `model.layers.0.mlp.experts.gate_up_proj#3[0:64]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.types import Matrix


@dataclass(frozen=True)
class Place:
    """Where a matrix lies in the network; `stop` 0 means all rows."""

    parameter: str
    index: int | None = None
    start: int = 0
    stop: int = 0

    def __str__(self) -> str:
        expert = "" if self.index is None else f"#{self.index}"
        return self.parameter + expert + (f"[{self.start}:{self.stop}]" if self.stop else "")

    @property
    def module(self) -> str:
        """Path of the module that owns the parameter."""
        return self.parameter.rpartition(".")[0]


def place(matrix: Matrix) -> Place:
    """Read the matrix's place; without one it is the stored name (and expert).

    >>> place(Matrix("w2.3", 8, 4, "e", place="experts.down_proj#3[0:8]"))
    Place(parameter='experts.down_proj', index=3, start=0, stop=8)
    """
    found = re.fullmatch(r"([^#\[]+)(?:#(\d+))?(?:\[(\d+):(\d+)\])?", matrix.place or matrix.key)
    if not found:
        raise ValueError(f"not a place: {matrix.place}")
    name, index, start, stop = found.groups()
    return Place(name, None if index is None else int(index), int(start or 0), int(stop or 0))


def view(root: nn.Module, matrix: Matrix) -> Tensor:
    """The weight as `rows x cols`, sharing memory with the network: writing into it changes the network."""
    where = place(matrix)
    owner = root.get_submodule(where.module)
    weight = getattr(owner, where.parameter.rpartition(".")[2]).detach()
    if where.index is not None:
        weight = weight[where.index]
    if weight.dim() > 2:  # a convolution: in * kh * kw columns
        weight = weight.view(weight.shape[0], -1)
    if matrix.transposed:
        weight = weight.T
    if where.stop:
        weight = weight[where.start : where.stop]
    return weight


@torch.no_grad()
def put(root: nn.Module, matrix: Matrix, values: Tensor) -> None:
    """Write `rows x cols` values into the network, in its own number type."""
    view(root, matrix).copy_(values)
