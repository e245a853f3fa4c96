"""Seconds promised and seconds measured, of whole plans in the file that was written. Run it on a quiet machine.

    OMP_NUM_THREADS=1 PYTHONPATH=src python -m benchmarks.latency [--only resnet20]

Budgets are shares of what the uncut network takes by the same clock. `off_promise` is measured over promised, less one,
and `off` measured over the same sum by a clock of that moment (`again`): a shared machine is not the same for minutes.
The clock times every shape alone, so it cannot know what caches do between them. Writes benchmarks/latency.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks import harness
from secateur.cut import cut
from secateur.cut.latency import timed
from secateur.cut.opening import open_case
from secateur.parts.edits.keep import Keep
from secateur.types import BudgetError

SHARED = harness.ROOT.parent / "shared"
LM = SHARED / "models/lm-small", SHARED / "data/lm/calib.txt"
RESNET = SHARED / "models/cifar_resnet/resnet20_jpeg.safetensors", SHARED / "data/cifar10/train_5000.npz"
#: model and data, format, kinds of edits, other caps, samples, and shares of the uncut network's time
CASES = (
    (*LM, "torch-export", "bits,rank,channels,heads,drop", "", 32, (0.9, 0.75, 0.6)),
    (*LM, "onnx", "bits", ", 6 bits/weight", 32, (1.5, 1.2, 0.9)),
    (*RESNET, "safetensors", "channels", "", 1000, (0.8, 0.6)),
    (*RESNET, "onnx", "bits,channels", "", 1000, (0.9, 0.75, 0.6)),
)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", help="only models whose name has this in it")
    only = asked.parse_args().only
    for model, data, format, edits, more, samples, shares in CASES:
        if only is None or only in model.name:
            one(model, data, format, edits, more, samples, shares)


def one(model: Path, data: Path, format: str, edits: str, more: str, samples: int, shares: tuple[float, ...]) -> None:
    case = timed(open_case(str(model), str(data), format, samples, None, 0, None, tuple(edits.split(","))))
    case.clock.study([(unit, Keep()) for unit in case.units])
    uncut = case.clock.rest + sum(case.clock.seconds(unit, Keep()) for unit in case.units)
    print(f"{model.name} {format}: uncut {1e3 * uncut:.2f} ms, of which other work {1e3 * case.clock.rest:.2f} ms")
    with TemporaryDirectory() as place:
        for share in shares:
            budget = f"{1e3 * share * uncut:.4f} ms{more}"
            try:
                told = cut(
                    str(model), str(data), budget, out=f"{place}/out", format=format, edits=edits, samples=samples
                )
            except BudgetError as why:
                print(f"{budget}: {why.message}")
                continue
            promised, again, found = (told["latency"][name] for name in ("promised", "again", "measured"))
            row = {"model": model.name, "format": format, "share": share, "uncut_ms": f"{1e3 * uncut:.3f}"}
            row |= {"budget": budget, "promised_ms": f"{1e3 * promised:.3f}", "again_ms": f"{1e3 * again:.3f}"}
            row |= {"measured_ms": f"{1e3 * found:.3f}", "off": f"{found / again - 1:+.3f}"}
            row |= {"off_promise": f"{found / promised - 1:+.3f}", "kl": f"{told['kl']:.4g}"}
            row |= {"threads": torch.get_num_threads()}
            print(row, flush=True)
            out = harness.ROOT / "benchmarks" / "latency.csv"
            harness.write_rows(out, [row | harness.stamp()], key=("model", "format", "share"))


if __name__ == "__main__":
    main()
