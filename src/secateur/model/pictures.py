"""Examples with a label: pictures, or any array of one shape, from an .npz file; and what a network makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from secateur.types import DataError, ModelError

#: names under which an .npz may hold the examples
_NAMES = ("images", "features")
_HINT = "give an .npz with `images` (examples x height x width x channels) and `labels` (examples)"


@dataclass(frozen=True)
class Prepare:
    """How stored numbers become what a network takes: `(number * scale - mean) / std`, a channel at a time.

    `shape` is that of one input, channels first. Stored examples may have their channels last, or no axis for them
    where there is only one.
    """

    shape: tuple[int, ...]
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, stored: Tensor) -> Tensor:
        """Float32 inputs, [examples, channels, ...]."""
        x = self._channels_first(stored).float() * self.scale
        mean, std = (
            torch.tensor(v, device=x.device).reshape(1, -1, *[1] * (x.dim() - 2)) for v in (self.mean, self.std)
        )
        return (x - mean) / std

    def _channels_first(self, stored: Tensor) -> Tensor:
        one = tuple(stored.shape[1:])
        if one == (*self.shape[1:], self.shape[0]):
            return stored.movedim(-1, 1)
        if one == self.shape:
            return stored
        if self.shape[0] == 1 and one == self.shape[1:]:
            return stored[:, None]
        raise DataError(
            f"the examples are of shape {list(one)}, and the network takes {list(self.shape)} (channels first)",
            "resize them, or give the examples that the network was made for",
        )

    def told(self) -> dict[str, Any]:
        """As config.json and exported files state it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Prepare:
        """As `told` wrote it."""
        try:
            shape = tuple(int(n) for n in told["shape"])
            mean, std = (tuple(float(v) for v in told.get(name, (d,))) for name, d in (("mean", 0.0), ("std", 1.0)))
            return cls(shape, float(told.get("scale", 1.0)), mean, std)
        except (KeyError, TypeError, ValueError) as error:
            hint = "it needs `shape`, and may have `scale`, `mean` and `std`"
            raise ModelError(f"the preprocessing cannot be read: {error!r}", hint) from None


@dataclass(frozen=True)
class Pictures:
    """Stored examples [examples, ...] and their labels [examples]; slices and masks take some of both."""

    x: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: Any) -> Pictures:
        return Pictures(self.x[at], self.labels[at])

    def digest(self) -> str:
        """A short hash of the examples and their labels."""
        sha = hashlib.sha256(repr(tuple(self.x.shape)).encode())
        for tensor in (self.x, self.labels):
            sha.update(tensor.contiguous().numpy().tobytes())
        return sha.hexdigest()[:16]


def read_pictures(file: str | Path, classes: int | None = None) -> Pictures:
    """All examples of an .npz. Nothing in it is ever run: arrays of objects are refused.

    DataError where there are no examples, no labels, or labels that the network's `classes` do not have.
    """
    path = Path(file).expanduser()
    if path.suffix != ".npz":
        raise DataError(f"{file} is not an .npz file, and image models are measured and cut on examples", _HINT)
    try:
        with np.load(path, allow_pickle=False) as held:
            name = next((name for name in _NAMES if name in held.files), None)
            if name is None or "labels" not in held.files:
                found = ", ".join(held.files) or "nothing"
                raise DataError(f"{path} lacks `{'labels' if name else 'images'}` (it holds {found})", _HINT)
            x, labels = held[name], held["labels"]
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", _HINT) from None
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an .npz: {str(error) or type(error).__name__}", _HINT) from None
    _check(path, name, x, labels, classes)
    return Pictures(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(labels.astype(np.int64)))


def _check(path: Path, name: str, x: np.ndarray, labels: np.ndarray, classes: int | None) -> None:
    if x.dtype.kind not in "uif" or x.dtype.itemsize > 8 or x.ndim < 2:
        raise DataError(f"`{name}` in {path} is {x.dtype} of shape {list(x.shape)}, not numbers", _HINT)
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise DataError(f"`labels` in {path} is {labels.dtype} of shape {list(labels.shape)}", "they are whole numbers")
    if len(x) != len(labels):
        raise DataError(f"{path} holds {len(x)} examples and {len(labels)} labels", "every example has one label")
    if len(x) == 0:
        raise DataError(f"{path} holds no examples", _HINT)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(f"`{name}` in {path} holds NaN or infinity", "remove these examples")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        bad = low if low < 0 else high
        raise DataError(
            f"the label {bad} in {path} is none of the network's {classes or 'classes'}",
            "labels count from 0; is this the data that the network was made for?",
        )


def parted(pictures: Pictures, samples: int | None, seed: int) -> tuple[Pictures, Pictures, Pictures]:
    """To gather statistics on, to correct the prediction on, and to report on: 16, 4 and 5 of 25, drawn at random.

    `samples` are the first two together; not said, four fifths of what there is, at most 4,000.
    """
    n = len(pictures)
    want = min(n * 4 // 5, 4000) if samples is None else samples
    held = max(want // 4, 8)
    if n < want + held or want < 10:
        raise DataError(
            f"{n} examples are too few for {max(want, 10)} to calibrate on and {held} held back",
            f"take fewer --samples (at most {n * 4 // 5 - 8}), or give more data" if n > 24 else "give more data",
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    known, kept = order[:want], order[want : want + held]
    mine = torch.arange(want) % 5 == 4
    return pictures[known[~mine]], pictures[known[mine]], pictures[kept]
