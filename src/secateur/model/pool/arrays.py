"""Examples of an .npz: what its arrays hold along their first axis, read piece by piece and never as a whole.

Nothing in the file is ever run: arrays of objects are refused. Labels may be missing; there is no loss then.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from secateur.model.disk import atomic
from secateur.types import DataError

_HINT = "give an .npz with `images` (examples x height x width x channels), and `labels` if there are any"
#: bytes of an array that are in memory at once
_PIECE = 1 << 24


@dataclass(frozen=True)
class _Array:
    """One array of the file, from its header."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def row(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])


class Arrays:
    """The examples of an .npz: `images` or `features`, `labels` where there are any, and whatever lies beside them."""

    each = "example"

    def __init__(self, name: str | Path):
        self.path, self.name = Path(name).expanduser(), str(name)
        if self.path.suffix != ".npz":
            raise DataError(f"{name} is not an .npz file, and an image model looks at examples", _HINT)
        if not self.path.exists():
            raise DataError(f"there is no file {name}", _HINT)
        self.arrays = dict(self._headers())
        found = next((one for one in ("images", "features") if one in self.arrays), None)
        if found is None:
            raise DataError(f"{name} lacks `images` (it holds {', '.join(self.arrays) or 'nothing'})", _HINT)
        self.main, held = found, self.arrays[found]
        if held.dtype.kind not in "uif" or held.dtype.itemsize > 8 or len(held.shape) < 2:
            raise DataError(f"`{found}` in {name} is {held.dtype} of shape {list(held.shape)}, not numbers", _HINT)
        if held.shape[0] == 0:
            raise DataError(f"{name} holds no examples", _HINT)
        labels = self.arrays.get("labels")
        if labels and (labels.shape != held.shape[:1] or labels.dtype.kind not in "ui"):
            said = f"`labels` in {name} is {labels.dtype} of shape {list(labels.shape)}"
            raise DataError(said, f"they are whole numbers, one for each of the {held.shape[0]} examples")
        self.labelled = labels is not None
        self.taken = f"examples, the first axis of `{found}`"

    def __len__(self) -> int:
        return self.arrays[self.main].shape[0]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Examples as stored, so many at a time, and their labels."""
        labels = iter(self._rows("labels", size)) if self.labelled else None
        for x in self._rows(self.main, size):
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                raise DataError(f"`{self.main}` in {self.path} holds NaN or infinity", "remove these examples")
            mine = None if labels is None else torch.from_numpy(next(labels).astype(np.int64))
            yield torch.from_numpy(x), mine

    def beside(self, name: str) -> list[Any]:
        """What an array with a row for each example holds of it."""
        array = self.arrays.get(name)
        if array is None or array.shape[:1] != (len(self),):
            known = ", ".join(one for one, held in self.arrays.items() if held.shape[:1] == (len(self),))
            raise DataError(f"{self.path} has no array `{name}` with a row for each example", f"there are {known}")
        return [value for rows in self._rows(name, 4096) for value in rows.tolist()]

    def write(self, chosen: Sequence[int], to: Path) -> None:
        """Of every array that has a row for each example the chosen rows; others as they are."""
        wanted, n = np.sort(np.asarray(chosen, dtype=np.int64)), len(self)
        with atomic(to) as raw, zipfile.ZipFile(raw, "w") as out:
            for name, array in self.arrays.items():
                mine = bool(array.shape) and array.shape[0] == n
                info = zipfile.ZipInfo(f"{name}.npy")  # of the year 1980, so that the same is the same
                info.compress_type = self._packing[name]
                with out.open(info, "w", force_zip64=True) as file:
                    shape = (len(wanted), *array.shape[1:]) if mine else array.shape
                    about = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
                    npy.write_array_header_1_0(file, about)  # type: ignore[arg-type]  # it asks for no more than write
                    at = 0
                    for rows in self._rows(name, max(1, _PIECE // max(array.row, 1))):
                        here = wanted[(wanted >= at) & (wanted < at + len(rows))] - at if mine else slice(None)
                        file.write(np.ascontiguousarray(rows[here]).tobytes())
                        at += len(rows)

    def _headers(self) -> Iterator[tuple[str, _Array]]:
        self._packing: dict[str, int] = {}
        try:
            with zipfile.ZipFile(self.path) as held:
                for info in held.infolist():
                    name = info.filename.removesuffix(".npy")
                    self._packing[name] = info.compress_type
                    with held.open(info) as file:
                        yield name, self._header(name, file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            said = str(error) or type(error).__name__
            raise DataError(f"{self.path} cannot be read as an .npz: {said}", _HINT) from None

    def _header(self, name: str, file: IO[bytes]) -> _Array:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise DataError(f"`{name}` in {self.path} holds Python objects, which are never read", _HINT)
        return _Array(tuple(shape), dtype, bool(fortran and len(shape) > 1))

    def _rows(self, name: str, size: int) -> Iterator[np.ndarray]:
        """The rows of an array, so many at a time; one number alone, and columns first, come as a whole."""
        array: Any = self.arrays[name]
        try:
            with zipfile.ZipFile(self.path) as held, held.open(f"{name}.npy") as file:
                self._header(name, file)
                if array.fortran or not array.shape:
                    flat = np.frombuffer(file.read(), array.dtype)
                    whole = flat.reshape(array.shape[::-1]).T if array.fortran else flat.reshape(array.shape)
                    pieces = [whole[at : at + size] for at in range(0, len(whole), size)] if array.shape else [flat]
                    yield from pieces
                    return
                for at in range(0, array.shape[0], size):
                    n = min(size, array.shape[0] - at)
                    read = bytearray(file.read(n * array.row))
                    if len(read) < n * array.row:
                        raise DataError(f"`{name}` in {self.path} is shorter than it says", "copy the file again")
                    yield np.frombuffer(read, array.dtype).reshape(n, *array.shape[1:])
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path} cannot be read as an .npz: {error}", _HINT) from None
