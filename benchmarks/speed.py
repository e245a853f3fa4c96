"""Processor seconds of the parts, in one run: one-sided rounding at one width, the whole cut, and one large matrix.

    python benchmarks/speed.py MODEL DATA [--large] [--csv benchmarks/speed.csv]

Rivals' seconds on the same machine are in `rivals.csv`; compare ratios of one run, not seconds of two machines.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from harness import stamp, write_rows

from secateur.cut import cut
from secateur.cut.opening import open_case
from secateur.maths.grids.affine import Affine
from secateur.maths.settle import Effort, settle
from secateur.maths.sums import Gram
from secateur.model.matrix import put, view
from secateur.model.watch import watch


def one_sided(model: str, data: str, bits: int = 4, samples: int = 128) -> None:
    """What GPTQ does: input statistics block by block, from the network as cut so far, and feedback along the rows."""
    case = open_case(model, data, "compressed-tensors", samples, None, 0, "cpu")
    stream = case.stream
    hidden = stream.embed(case.calib)
    for i, path in enumerate(stream.blocks):
        matrices = tuple(m for unit in case.units if unit.block == i for m in unit.matrices)
        grams = {m.tap: Gram.empty(m.cols) for m in matrices}
        with stream.loaded(path):
            with watch(stream.network, matrices, inputs=lambda tap, x, grams=grams: grams[tap].update(x)):
                stream.through(i, hidden)
            for m in matrices:
                w = view(stream.network, m)
                put(stream.network, m, settle(w, Affine(bits, 128), grams[m.tap].mean(), None, Effort(), 1).values)
            if i + 1 < len(stream.blocks):  # nobody asks what leaves the last
                hidden = stream.through(i, hidden)


def whole(model: str, data: str) -> None:
    with TemporaryDirectory() as out:
        cut(model, data, "3.126 bits/weight", out=out, over="linear")


def large(device: str, sides: int) -> None:
    """One matrix of a 7B network's size, at 3 bits in groups of 128, no refits."""
    random = torch.Generator().manual_seed(0)
    rows, cols = 4096, 11008
    w = torch.randn(rows, cols, generator=random).to(device)
    x = torch.randn(cols + 512, cols, generator=random).to(device) * torch.rand(cols, generator=random).to(device)
    g = torch.randn(rows + 512, rows, generator=random).to(device)
    settle(w, Affine(3, 128), x.mT @ x / len(x), g.mT @ g / len(g), Effort(), sides)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--csv", default=str(Path(__file__).parent / "speed.csv"))
    args = parser.parse_args()
    jobs = {
        "one-sided, 4 bits, groups of 128": lambda: one_sided(args.model, args.data),
        "survey, plan, two-sided apply and verification at 3.126 bits": lambda: whole(args.model, args.data),
    }
    if args.large:
        devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
        for device in devices:
            for sides in (1, 2):
                jobs[f"4096 x 11008 on {device}, {sides}-sided"] = lambda device=device, sides=sides: large(
                    device, sides
                )
    for name, job in jobs.items():
        cpu, wall = time.process_time(), time.perf_counter()
        job()
        row = {"job": name, "model": "" if "x" in name else Path(args.model).name, "threads": torch.get_num_threads()}
        row |= {"cpu_s": round(time.process_time() - cpu, 2), "wall_s": round(time.perf_counter() - wall, 2)}
        print(row, flush=True)
        write_rows(Path(args.csv), [stamp() | row], key=("job", "model"))


if __name__ == "__main__":
    main()
