"""How fast block grids are fitted: our search against the C encoder of llama.cpp, and error feedback apart.

    PYTHONPATH=src python -m benchmarks.blocks [q2_k ...] [--date 2026-11-25]

One matrix of 512 x 2048 Gaussian weights with uneven second moments, one thread for both, the best of two runs, in
nanoseconds of processor time per weight (a busy machine matters little to it): `c` the encoder with an importance
matrix, `search` our scales, `code` nearest values and bytes, `feedback` one two-sided sweep of 256 x 768. `error` is
our weighted squared error over the encoder's. The C encoder searches nothing for q8_0, mxfp4, tq1_0 and tq2_0: it takes
the largest weight. Appends to blocks.csv.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.maths.grids import blocks
from secateur.maths.rounding import nearest
from secateur.maths.settle import Metric

HERE = Path(__file__).parent
THREADS = 1


@dataclass(frozen=True)
class Encoder:
    """`ggml_quantize_chunk` of the real library."""

    library: Any

    @classmethod
    def found(cls) -> Encoder:
        files = [*Path(sys.prefix).glob("node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so")]
        if not files:
            raise SystemExit("the library of llama.cpp is not beside the environment\nhint: `make test` puts it there")
        library = ctypes.CDLL(str(files[0]))
        floats = ctypes.POINTER(ctypes.c_float)
        library.ggml_quantize_chunk.restype = ctypes.c_size_t
        sizes = (ctypes.c_int64,) * 3
        library.ggml_quantize_chunk.argtypes = (ctypes.c_int, floats, ctypes.c_void_p, *sizes, floats)
        return cls(library)

    def __call__(self, kind: str, w: Tensor, weight: Tensor, threads: int = 1) -> Tensor:
        """Blocks [rows, bytes] of `w`, with an importance matrix [cols]."""
        from gguf import GGMLQuantizationType

        rows, cols = w.shape
        w, weight = w.float().contiguous(), weight.float().contiguous()
        out = torch.zeros(rows, blocks.row_bytes(kind, cols), dtype=torch.uint8)
        floats = ctypes.POINTER(ctypes.c_float)
        x, heed = (ctypes.cast(t.data_ptr(), floats) for t in (w, weight))

        def part(at: int) -> None:
            first, last = rows * at // threads, rows * (at + 1) // threads
            number = int(GGMLQuantizationType[kind.upper()])
            self.library.ggml_quantize_chunk(number, x, out.data_ptr(), first * cols, last - first, cols, heed)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))
        return out


def nanoseconds(do: Callable[[], Any], n: int, runs: int = 2) -> tuple[float, Any]:
    """Of processor time per weight, the best of some runs; and what came of it."""
    best, made = float("inf"), None
    for _ in range(runs):
        begun = time.process_time()
        made = do()
        best = min(best, time.process_time() - begun)
    return best / n * 1e9, made


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("kinds", nargs="*", default=list(blocks.SCALARS))
    asked.add_argument("--date", default=date.today().isoformat())
    said = asked.parse_args()
    torch.set_num_threads(THREADS)
    random = torch.Generator().manual_seed(0)
    w = 0.02 * torch.randn(512, 2048, generator=random)
    weight = torch.rand(2048, generator=random) ** 3 * 10 + 0.01
    some, a = w[:256, :768], torch.diag(weight[:768]) + 0.5
    metric = Metric.of(a, torch.eye(256) + 0.1)
    encoder = Encoder.found()
    file = HERE / "blocks.csv"
    fresh = not file.exists()
    with file.open("a", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        if fresh:
            table.writerow(["date", "kind", "c", "search", "code", "feedback", "search_over_c", "error_over_c"])
        for kind in said.kinds:
            grid = blocks.grid(kind)
            c, raw = nanoseconds(lambda kind=kind: encoder(kind, w, weight, THREADS), w.numel())
            search, fit = nanoseconds(lambda grid=grid: grid.fit(w, weight), w.numel())
            code, coded = nanoseconds(lambda fit=fit: fit.code(nearest(w, fit, weight)), w.numel())
            small = grid.fit(some, weight[:768])
            feedback, _ = nanoseconds(lambda small=small: metric.sweep(some, small), some.numel(), 1)
            lost = [float(((x - w).square() @ weight).sum()) for x in (coded.values, blocks.decode(kind, raw))]
            figures = (c, search, code, feedback, search / c, lost[0] / lost[1])
            table.writerow([said.date, kind, *(f"{x:.3g}" for x in figures)])
            out.flush()
            print(kind, *(f"{x:.3g}" for x in figures), flush=True)


if __name__ == "__main__":
    main()
