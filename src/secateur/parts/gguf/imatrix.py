"""Importance matrices of llama.cpp: the mean squared input of every linear layer, gathered, read and written.

It is the diagonal of our A, all that stock quantizers look at. Two forms: the old `.dat` (counts and sums, one entry
after the other) and GGUF, where each tensor has `NAME.in_sum2` and `NAME.counts`. Values here are means, by the file's
names.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.model.disk import atomic
from secateur.parts.gguf.names import package
from secateur.types import DataError

#: a matrix: name of the tensor in the file -> float32 [inputs]
Importance = dict[str, np.ndarray]


@torch.no_grad()
def gather(stream: Any, tokens: Tensor, names: Mapping[str, str]) -> Importance:
    """From windows of tokens, block by block; `names` says what the file calls each stored tensor."""
    from secateur.model.watch import watch

    units, sums = stream.anatomy.units, {}

    def see(tap: str, x: Tensor) -> None:
        sums[tap] = sums.get(tap, 0) + x.double().square().sum(0)

    hidden = stream.embed(tokens)
    for i, path in enumerate(stream.blocks):
        matrices = [m for unit in units if unit.block == i and unit.kind == "linear" for m in unit.matrices]
        with stream.loaded(path), watch(stream.network, matrices, inputs=see):
            hidden = stream.through(i, hidden)
    heads = [m for unit in units if unit.kind == "head" for m in unit.matrices]
    with stream.tail() as tail, watch(stream.network, heads, inputs=see):
        for at in range(0, len(tokens), 4):
            tail(hidden[at : at + 4].to(stream.device))
    found = {names[m.tensor]: sums[m.tap] / tokens.numel() for unit in units for m in unit.matrices if m.tap in sums}
    return {name: mean.float().cpu().numpy() for name, mean in found.items()}


def save(importance: Importance, file: Path, tokens: int, data: str = "", chunk: int = 512) -> None:
    """Write a matrix gathered on so many tokens: `.dat` in the old form, any other name as GGUF."""
    chunks = max(1, tokens // chunk)
    if file.suffix == ".dat":
        with atomic(file) as out:
            out.write(struct.pack("<i", len(importance)))
            for name, mean in importance.items():
                out.write(struct.pack("<i", len(name.encode())) + name.encode() + struct.pack("<ii", chunks, len(mean)))
                out.write((mean * chunks).astype("<f4").tobytes())
            out.write(struct.pack("<i", chunks) + struct.pack("<i", len(data.encode())) + data.encode())
        return
    gguf = package()
    with atomic(file) as out:
        writer = gguf.GGUFWriter(None, "")
        writer.add_type("imatrix")
        writer.add_uint32("imatrix.chunk_count", chunks)
        writer.add_uint32("imatrix.chunk_size", chunk)
        writer.add_array("imatrix.datasets", [data or "text"])
        for name, mean in sorted(importance.items()):
            writer.add_tensor(f"{name}.in_sum2", (mean * np.float32(tokens)).astype(np.float32)[None])
            writer.add_tensor(f"{name}.counts", np.array([[tokens]], dtype=np.float32))
        writer.fout, writer.state = [out], gguf.gguf_writer.WriterState.EMPTY
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def load(file: Path) -> Importance:
    """Read a matrix of either form; DataError if it is neither. Experts' rows come one after the other."""
    with file.open("rb") as opened:
        head = opened.read(4)
    try:
        return _from_gguf(file) if head == b"GGUF" else _from_dat(file.read_bytes())
    except (struct.error, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not an importance matrix of llama.cpp ({error})", "make it again") from None


def _from_gguf(file: Path) -> Importance:
    held = {tensor.name: np.array(tensor.data) for tensor in package().GGUFReader(str(file)).tensors}
    names = [name.removesuffix(".in_sum2") for name in held if name.endswith(".in_sum2")]
    if not names:
        raise ValueError("it holds no sums")
    return {name: (held[f"{name}.in_sum2"] / held[f"{name}.counts"].reshape(-1, 1)).reshape(-1) for name in names}


def _from_dat(raw: bytes) -> Importance:
    at, found = 4, {}
    for _ in range(struct.unpack_from("<i", raw)[0]):
        (length,) = struct.unpack_from("<i", raw, at)
        name = raw[at + 4 : at + 4 + length].decode()
        calls, size = struct.unpack_from("<ii", raw, at + 4 + length)
        at += 12 + length
        values = np.frombuffer(raw, "<f4", size, at)
        found[name] = (values / max(calls, 1)).astype(np.float32)
        at += 4 * size
    return found
