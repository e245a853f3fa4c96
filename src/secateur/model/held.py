"""A small network's tensors in memory, where a checkpoint on disk is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.model.checkpoint import DTYPES, Entry
from secateur.types import ModelError

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Held:
    """Stands for a `Checkpoint`: `folder` is where the network came from, as the user calls it."""

    folder: Path
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @cached_property
    def tensors(self) -> dict[str, Entry]:
        return {
            name: Entry(_NAMES[value.dtype], tuple(value.shape), self.folder, 0, value.nbytes)
            for name, value in self.state.items()
        }

    @property
    def bytes(self) -> int:
        """Bytes of all tensors, without headers."""
        return sum(value.nbytes for value in self.state.values())

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """One tensor, or some rows of it."""
        return self.state[name] if rows is None else self.state[name][slice(*rows)]

    def check_finite(self, name: str) -> None:
        """ModelError if the tensor holds NaN or infinity, with the name and how many."""
        values = self.state[name]
        bad = values.numel() - int(torch.isfinite(values).sum()) if values.is_floating_point() else 0
        if bad:
            raise ModelError(
                f"`{name}` holds {bad} NaN or infinite value{'s' if bad > 1 else ''} of {values.numel()}",
                "the file is damaged or its training diverged; get it again",
            )

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same weights wherever they lie; every byte counts."""
        sha = hashlib.sha256(json.dumps(self.config, sort_keys=True, default=str).encode())
        for name, value in sorted(self.state.items()):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            sha.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()[:32]
