"""Hidden states between blocks: in memory while they are few, in a file when they are many.

The file is read and written, not mapped: mapped pages count as resident memory, and on a full disk they would end the
process with a signal and not with an error.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from secateur.model.disk import room_for
from secateur.types import SecateurError

#: hidden states above this many bytes are parked in a file
IN_MEMORY = 128 * 2**20


class Parked:
    """Float32 numbers in a file, `samples x length x width`; slices of samples are read and written like a tensor's."""

    def __init__(self, shape: Sequence[int], file: Path, fresh: bool = True):
        self.shape, self.file = tuple(shape), file
        self._row = 4 * math.prod(self.shape[1:])
        if fresh:
            with room_for(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.open("wb").close()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: slice | tuple[slice, ...]) -> Tensor:
        samples, *inner = at if isinstance(at, tuple) else (at,)
        start, stop, _ = samples.indices(len(self))
        out = torch.empty(max(stop - start, 0), *self.shape[1:])
        with self.file.open("rb") as file:
            file.seek(start * self._row)
            if file.readinto(_bytes(out)) != out.nbytes:  # type: ignore[arg-type]  # numpy's arrays are buffers
                raise SecateurError(f"{self.file} is shorter than it was left", "give the same command with --fresh")
        return out[:, *inner] if inner else out

    def __setitem__(self, at: slice, values: Tensor) -> None:
        start, stop, _ = at.indices(len(self))
        values = values.detach().to("cpu", torch.float32).expand(stop - start, *self.shape[1:]).contiguous()
        with room_for(self.file), self.file.open("r+b") as file:
            file.seek(start * self._row)
            file.write(_bytes(values))


#: both are read by `states[2:4]` and written by `states[2:4] = values`
States = Tensor | Parked


def parked(shape: Sequence[int], file: Path | None = None, copies: int = 1) -> States:
    """Room for hidden states: in memory, or in `file` when `copies` of them are many."""
    if file is None or 4 * copies * math.prod(shape) <= IN_MEMORY:
        return torch.empty(*shape)
    return Parked(shape, file)


def save(states: States, file: Path) -> None:
    """Put finished states under a name, whole or not at all; a parked file is renamed."""
    part = file.with_name(f".{file.name}.part")
    if isinstance(states, Parked):
        os.replace(states.file, file)
        states.file = file
        return
    with room_for(file):
        part.write_bytes(_bytes(states.contiguous()))
        os.replace(part, file)


def load(shape: Sequence[int], file: Path, copies: int = 1) -> States:
    """Saved states: where they lie, or in memory when they are few."""
    found = Parked(shape, file, fresh=False)
    return found if 4 * copies * math.prod(shape) > IN_MEMORY else found[:]


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
