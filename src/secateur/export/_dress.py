"""A network whose parameters are made of stored tensors at the moment they are needed: what graphs are exported from.

`dress` takes every parameter out of a network and puts a module under its name, whose tensors are those of the file and
whose call gives the parameter in float32. So a traced graph holds packed weights, and decodes them one layer at a time.
Where a linear layer's weight is the product of two thin matrices it multiplies by both, which is what low rank is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from secateur.export._dense import stored_tensors
from secateur.maths.unpacking import unpacked
from secateur.model.names import Piece, Sources
from secateur.parts.edits import GridEdit
from secateur.parts.edits.keep import Keep
from secateur.types import Edit, Matrix, Unit

#: a stored tensor by its name in the file
Read = Callable[[str], Tensor]


class Plain(nn.Module):
    """A tensor stored as numbers."""

    def __init__(self, values: Tensor):
        super().__init__()
        self.register_buffer("values", values)

    def forward(self) -> Tensor:
        values: Any = self.values
        return values.float() if values.is_floating_point() else values


class Decoded(nn.Module):
    """A matrix on a grid, packed; it comes in the orientation in which the checkpoint had it."""

    def __init__(self, matrix: Matrix, edit: GridEdit, read: Read):
        super().__init__()
        self.edit, self.transposed = edit, matrix.transposed
        self.parts = edit.payload(matrix.rows, matrix.cols)
        for name in self.parts:
            self.register_buffer(name, read(f"{matrix.key}.{name}"))

    def tensors(self) -> dict[str, Tensor]:
        """The stored parts, unpacked."""
        tensors: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            held: Any = getattr(self, name)
            if part.levels:
                held = (unpacked(held, part.levels, math.prod(part.shape)) + part.low).reshape(part.shape)
            tensors[name] = held
        return tensors

    def forward(self) -> Tensor:
        values = self.edit.decode(self.tensors())
        return values.T if self.transposed else values

    @property
    def thin(self) -> bool:
        """Whether it is the product of two thin matrices, through which an input can go one after the other."""
        return hasattr(self.edit, "factors")

    def through(self, x: Tensor) -> Tensor:
        """The matrix times `x` [..., cols], without making the matrix."""
        left, right = self.edit.factors(self.tensors())  # type: ignore[attr-defined]
        return (x @ right.mT) @ left


class Stack(nn.Module):
    """Experts one above the other; each is one tensor, or several whose rows follow each other."""

    def __init__(self, experts: Sequence[Sequence[nn.Module]]):
        super().__init__()
        self.experts = nn.ModuleList(nn.ModuleList(rows) for rows in experts)

    def forward(self) -> Tensor:
        return torch.stack([torch.cat([part() for part in rows]) for rows in self.experts])  # type: ignore[attr-defined]


class Shaped(nn.Module):
    """The same numbers in another shape: a convolution's kernel from its matrix."""

    def __init__(self, of: nn.Module, shape: Sequence[int]):
        super().__init__()
        self.of, self.shape = of, tuple(shape)

    def forward(self) -> Tensor:
        return self.of().reshape(self.shape)


def dress(network: nn.Module, sources: Sources, made: Mapping[str, nn.Module]) -> nn.Module:
    """Give every parameter of a network (its parameters may be on meta) a module that makes it; the network, changed.

    `made` gives the modules of the checkpoint's tensors. Buffers that are on disk are filled in, in their own type.
    """
    parameters: dict[tuple[Piece, ...], Shaped] = {}
    for path, owner in list(network.named_modules()):
        own = {name: sources.get(f"{path}.{name}" if path else name, ()) for name in owner._parameters}
        names = tuple(name for name, pieces in own.items() if pieces)
        for name in names:
            if own[name] not in parameters:  # the same for tied parameters
                shape = owner._parameters[name].shape  # type: ignore[union-attr]  # one that has pieces is there
                parameters[own[name]] = Shaped(_joined(own[name], made), shape)
            del owner._parameters[name]
            owner.add_module(name, parameters[own[name]])
        maker: Any = parameters[own["weight"]].of if "weight" in names else None
        if isinstance(maker, Decoded) and maker.thin and _multiplies(owner, maker.transposed):
            _go_through(owner, maker)
        elif names:
            _make_when_called(owner, names)
        for name, buffer in list(owner._buffers.items()):
            if buffer is not None and (pieces := sources.get(f"{path}.{name}" if path else name)):
                owner._buffers[name] = _joined(pieces, made)().to(buffer.dtype)
    return network


def decoded(units: Sequence[Unit], edits: Mapping[str, Edit], rest: Sequence[str], read: Read) -> dict[str, nn.Module]:
    """A module for every tensor of the checkpoint: those of units decode, all others are plain."""
    out: dict[str, nn.Module] = {name: Plain(read(name)) for name in rest}
    for unit in units:
        edit: Any = edits[unit.name]
        for name, matrices in stored_tensors(unit).items():
            if isinstance(edit, Keep):
                out[name] = Plain(read(name))
                continue
            planes = [Decoded(matrix, edit, read) for matrix in sorted(matrices, key=lambda m: m.index or 0)]
            out[name] = planes[0] if matrices[0].index is None else Stack([[plane] for plane in planes])
    return out


def _joined(pieces: tuple[Piece, ...], made: Mapping[str, nn.Module]) -> nn.Module:
    """A parameter from its stored tensors."""
    if pieces[0].index is None:
        return made[pieces[0].tensor]
    pieces = tuple(piece for piece in pieces if piece.tensor in made)  # experts that are gone are not there
    ordered = sorted(pieces, key=lambda piece: (piece.index or 0, piece.start))
    return Stack([[made[piece.tensor] for piece in one] for _, one in groupby(ordered, lambda piece: piece.index)])


def _multiplies(owner: nn.Module, transposed: bool) -> bool:
    """Whether all that a module does is to multiply an input by its weight and to add its bias."""
    return type(owner).__name__ == "Conv1D" if transposed else type(owner) is nn.Linear  # GPT-2's own linear layer


def _go_through(owner: nn.Module, weight: Decoded) -> None:
    """A linear layer of low rank multiplies by its two factors."""

    def forward(x: Tensor) -> Tensor:
        out = weight.through(x)
        return out + owner._modules["bias"]() if owner._modules.get("bias") else out  # type: ignore[misc]

    owner.forward = forward


def _make_when_called(owner: nn.Module, names: tuple[str, ...]) -> None:
    """For the time of each call the owner has its parameters, under their names; what it holds are their makers."""
    plain = owner.forward

    @wraps(plain)  # tracing asks for the names of its inputs
    def forward(*args: Any, **kwargs: Any) -> Any:
        values: Mapping[str, Any] = {name: owner._modules[name]() for name in names}  # type: ignore[misc]
        owner.__dict__.update(values)  # seen before the modules of the same names
        try:
            return plain(*args, **kwargs)
        finally:
            for name in names:
                del owner.__dict__[name]

    owner.forward = forward
