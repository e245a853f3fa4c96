"""Writing safetensors files: known to the byte beforehand, one tensor in memory at a time, whole or not at all.

A file appears under its name only when every byte of it is on disk (another name, fsync, rename). The bytes depend on
nothing but names, types, shapes and values: tensors lie by type, widest numbers first, then by name, as in files of the
safetensors library, which keeps every tensor aligned.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from secateur.model.checkpoint import DTYPES, Checkpoint, Entry, read_header
from secateur.model.disk import atomic
from secateur.types import ExportError

#: a stored tensor's type (safetensors' name) and shape
Layout = tuple[str, tuple[int, ...]]
#: files are split above this, as transformers does
SHARD = 5_000_000_000
#: what transformers asks of a file's metadata
METADATA = {"format": "pt"}
#: the order in which the safetensors library lays types
_ORDER = (
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "F8_E8M0",
    "I16",
    "U16",
    "F16",
    "BF16",
    "I32",
    "U32",
    "F32",
    "F64",
    "I64",
    "U64",
)
#: room in a header for two offsets of up to thirteen digits and a comma
_OFFSETS = 27
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def layout_of(tensor: Tensor) -> Layout:
    """Type and shape as safetensors writes them."""
    return _NAMES[tensor.dtype], tuple(tensor.shape)


def layout_bytes(layout: Layout) -> int:
    """Bytes of one tensor's data."""
    dtype, shape = layout
    return DTYPES[dtype].itemsize * math.prod(shape)


def file_bytes(layouts: Mapping[str, Layout], metadata: Mapping[str, str] = METADATA, shard: int = SHARD) -> int:
    """Bytes on disk of all .safetensors files that will hold these tensors, headers included, exactly."""
    return sum(len(_header(one, metadata)) + _data(one) for one in split(layouts, shard))


def split(layouts: Mapping[str, Layout], shard: int = SHARD) -> list[dict[str, Layout]]:
    """The shards: tensors in the order of their names (`layers.2` before `layers.10`), each as full as it gets."""
    shards: list[dict[str, Layout]] = [{}]
    filled = 0
    for name in sorted(layouts, key=_natural):
        size = layout_bytes(layouts[name])
        if shards[-1] and filled + size > shard:
            shards.append({})
            filled = 0
        shards[-1][name] = layouts[name]
        filled += size
    return [dict(sorted(one.items(), key=_order)) for one in shards]


def write_model(
    folder: Path,
    layouts: Mapping[str, Layout],
    produce: Callable[[str], Tensor | Iterator[bytes]],
    metadata: Mapping[str, str] = METADATA,
    shard: int = SHARD,
    stem: str = "model",
    priced: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write `stem.safetensors`, or shards and their index, asking `produce` for one tensor after the other.

    `priced` gives the names by which tensors were priced that are now called otherwise, and no longer. Shards of an
    earlier model in the same folder are removed once the new files are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = split(layouts, shard)
    n = len(shards)
    index_file = f"{stem}.safetensors.index.json"
    files = [f"{stem}.safetensors"] if n == 1 else [f"{stem}-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]
    for file, one in zip(files, shards, strict=True):
        write_file(folder / file, one, produce, metadata, priced)
    if n > 1:
        where = {name: file for file, one in zip(files, shards, strict=True) for name in one}
        index = {"metadata": {"total_size": sum(map(_data, shards))}, "weight_map": dict(sorted(where.items()))}
        write_text(folder / index_file, json.dumps(index, indent=2) + "\n")
    for old in model_files(folder, stem):
        if old.name not in files and not (old.name == index_file and n > 1):
            old.unlink()
    return [folder / file for file in files]


def model_files(folder: Path, stem: str = "model") -> list[Path]:
    """The files of this name that hold weights, and their index if there is one."""
    pattern = re.compile(stem + r"(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
    return sorted(file for file in folder.glob(f"{stem}*") if pattern.fullmatch(file.name))


def write_file(
    path: Path,
    layouts: Mapping[str, Layout],
    produce: Callable[[str], Tensor | Iterator[bytes]],
    metadata: Mapping[str, str] = METADATA,
    priced: Mapping[str, str] | None = None,
) -> None:
    """Write one .safetensors file. `produce(name)` gives a tensor of the announced layout, or its bytes in chunks."""
    layouts = dict(sorted(layouts.items(), key=_order))
    with atomic(path) as file:
        header = _header(layouts, metadata, priced or {})
        file.write(header)
        for name, layout in layouts.items():
            made = produce(name)
            if isinstance(made, Tensor):
                if layout_of(made) != layout:
                    raise ExportError(f"`{name}` was priced as {layout} and came as {layout_of(made)}")
                if made.numel():
                    file.write(_raw(made))
            else:
                for chunk in made:
                    file.write(chunk)
        expected = len(header) + _data(layouts)
        if file.tell() != expected:
            raise ExportError(f"{path.name} was priced at {expected} bytes and came to {file.tell()}")


def write_config(folder: Path, config: Mapping[str, object]) -> None:
    """Write config.json, the same bytes for the same config."""
    write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with atomic(path) as file:
        file.write(text.encode())


@dataclass(frozen=True)
class Parts:
    """Finished pieces of a model, one file each, to be put together in the end. A killed run finds them again."""

    folder: Path

    def save(self, piece: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a piece's tensors, whole or not at all."""
        layouts = {name: layout_of(tensor) for name, tensor in tensors.items()}
        write_file(self._path(piece), layouts, tensors.__getitem__)

    def has(self, piece: str) -> bool:
        return self._path(piece).exists()

    def load(self, piece: str) -> dict[str, Tensor]:
        """A piece's tensors, read and not mapped: mapped pages count as resident memory."""
        entries = read_header(self._path(piece))
        held = Checkpoint(self.folder, {}, entries)
        return {name: held.read(name) for name in entries}

    def layouts(self, pieces: Sequence[str]) -> dict[str, Layout]:
        """Every tensor of these pieces."""
        return {name: (entry.dtype, entry.shape) for name, entry in self._entries(pieces).items()}

    def stitch(
        self,
        pieces: Sequence[str],
        out: Path,
        metadata: Mapping[str, str] = METADATA,
        shard: int = SHARD,
        stem: str = "model",
        called: Mapping[str, str] | None = None,
    ) -> list[Path]:
        """One model of these pieces in `out`, tensors under other names where `called` has some. Bytes are copied
        through; the pieces stay (see `clear`)."""
        called, held = called or {}, self._entries(pieces)
        entries = {called.get(name, name): entry for name, entry in held.items()}
        priced = {new: old for old, new in called.items()}
        layouts = {name: (entry.dtype, entry.shape) for name, entry in entries.items()}
        return write_model(out, layouts, lambda name: copied(entries[name]), metadata, shard, stem, priced)

    def clear(self) -> None:
        """Remove every piece, and the folder if nothing else is in it."""
        for file in self.folder.glob("*.safetensors"):
            file.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, piece: str) -> Path:
        return self.folder / f"{piece}.safetensors"

    def _entries(self, pieces: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for piece in pieces:
            for name, entry in read_header(self._path(piece)).items():
                if name in found:
                    raise ExportError(f"`{name}` is in two pieces, {found[name].file.stem} and {piece}")
                found[name] = entry
        return found


def _header(
    layouts: Mapping[str, Layout], metadata: Mapping[str, str], priced: Mapping[str, str] | None = None
) -> bytes:
    """Length, then JSON; `layouts` in the order in which their data lie. An entry is as long as that of the name by
    which it was priced.

    Every entry is padded with spaces so that its length does not depend on where its data lie and is a multiple of
    eight: so the bytes of a file are a sum over its tensors, and the price of an edit is exact before any plan exists.
    """
    entries, at = [_about(metadata)], 0
    for name, layout in layouts.items():
        end = at + layout_bytes(layout)
        entry, was = (_entry(one, layout, at, end) for one in (name, (priced or {}).get(name, name)))
        entries.append(entry[:-1] + " " * (len(was.encode()) - len(entry.encode())) + ",")
        at = end
    text = "".join(entries)[:-1].encode() + b"}"
    return struct.pack("<Q", len(text)) + text


def base_bytes(metadata: Mapping[str, str] = METADATA) -> int:
    """Bytes of a .safetensors file beside its tensors and their entries in the header."""
    return 8 + len(_about(metadata).encode())


def tensor_bytes(name: str, layout: Layout) -> int:
    """Bytes that one tensor adds to a file: its data, and its entry in the header."""
    return layout_bytes(layout) + len(_entry(name, layout, 0, layout_bytes(layout)).encode())


def _about(metadata: Mapping[str, str]) -> str:
    """The opening of a header. Its last character and every entry's is a comma; the header's is a brace."""
    text = '{"__metadata__":' + json.dumps(dict(sorted(metadata.items())), separators=(",", ":"), ensure_ascii=False)
    return _to_eight(text)


def _entry(name: str, layout: Layout, start: int, end: int) -> str:
    dtype, shape = layout
    where = f"{start},{end}".rjust(_OFFSETS)
    sizes = ",".join(map(str, shape))
    return _to_eight(
        f'{json.dumps(name, ensure_ascii=False)}:{{"dtype":"{dtype}","shape":[{sizes}],"data_offsets":[{where}]}}'
    )


def _to_eight(text: str) -> str:
    return text + " " * (-(len(text.encode()) + 1) % 8) + ","


def _data(layouts: Mapping[str, Layout]) -> int:
    return sum(map(layout_bytes, layouts.values()))


def _order(item: tuple[str, Layout]) -> tuple[int, str]:
    kind = item[1][0]
    return -(_ORDER.index(kind) if kind in _ORDER else -1), item[0]


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]


def _raw(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def copied(entry: Entry, size: int = 1 << 24) -> Iterator[bytes]:
    """A stored tensor's bytes, a few megabytes at a time: what `write_model` takes to copy it."""
    left = entry.bytes
    with entry.file.open("rb") as file:
        file.seek(entry.start)
        while left:
            chunk = file.read(min(size, left))
            if not chunk:
                hint = "remove it and run the same command again"
                raise ExportError(f"{entry.file} is shorter than its header says", hint)
            left -= len(chunk)
            yield chunk
