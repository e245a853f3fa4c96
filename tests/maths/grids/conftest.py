"""The real library that llama.cpp encodes with, where it is installed."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch


class Ggml:
    """`encode` with the real library, `decode` with the public Python package."""

    def __init__(self, folder: Path):
        self.library = ctypes.CDLL(str(folder / "libggml-base.so"))
        floats = ctypes.POINTER(ctypes.c_float)
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t
        sizes = (ctypes.c_int64,) * 3
        self.library.ggml_quantize_chunk.argtypes = (ctypes.c_int, floats, ctypes.c_void_p, *sizes, floats)

    def encode(self, kind: str, w: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """Blocks [rows, bytes]; `weight` [cols] is what an importance matrix says."""
        number = gguf.GGMLQuantizationType[kind.upper()]
        weights, size = gguf.GGML_QUANT_SIZES[number]
        rows, cols = w.shape
        x = np.ascontiguousarray(w.numpy(), np.float32)
        held = None if weight is None else np.ascontiguousarray(weight.numpy(), np.float32)  # kept while C reads
        out = np.zeros((rows, cols // weights * size), np.uint8)
        floats = ctypes.POINTER(ctypes.c_float)
        heed = None if held is None else held.ctypes.data_as(floats)
        self.library.ggml_quantize_chunk(int(number), x.ctypes.data_as(floats), out.ctypes.data, 0, rows, cols, heed)
        return torch.from_numpy(out)


def decoded(kind: str, blocks: torch.Tensor) -> torch.Tensor:
    """What the public package reads."""
    values = gguf.quants.dequantize(blocks.numpy(), gguf.GGMLQuantizationType[kind.upper()])
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


@pytest.fixture(scope="session")
def reader():
    return decoded


@pytest.fixture(scope="session")
def ggml() -> Ggml:
    found = [*Path(sys.prefix).glob("node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so")]
    if not found:
        pytest.skip("the library of llama.cpp is not beside the environment: `make test` puts it there")
    return Ggml(found[0].parent)
