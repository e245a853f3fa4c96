"""Seconds promised and seconds measured, of whole plans in the file that was written. Run it on a quiet machine.

    OMP_NUM_THREADS=1 PYTHONPATH=src python -m benchmarks.latency [--only resnet20]

Budgets are shares of the uncut network's time, one survey a model. `off_promise` is measured over promised, less one;
`off` the same at the pace of the machine when the plan was made, by the uncut network that is timed in turn with the
file; `off_sum` what it would be had no whole plan been tried. Writes benchmarks/latency.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks import harness
from secateur.cut import cut
from secateur.parts.menus import load_menu
from secateur.types import BudgetError

SHARED = harness.ROOT.parent / "shared"
LM = SHARED / "models/lm-small", SHARED / "data/lm/calib.txt"
RESNET = SHARED / "models/cifar_resnet/resnet20_jpeg.safetensors", SHARED / "data/cifar10/train_5000.npz"
#: model and data, format, kinds of edits, other caps, samples, and shares of the uncut network's time
CASES = (
    (*LM, "torch-export", "bits,rank,channels,heads,drop", "", 32, (0.9, 0.75, 0.6)),
    (*LM, "onnx", "bits", ", 6 bits/weight", 32, (1.5, 1.2, 0.9)),
    (*RESNET, "safetensors", "channels", "", 1000, (0.9, 0.8)),
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
    with TemporaryDirectory() as place:
        for share in shares:
            budget, out = f"{100 * share:g}% ms{more}", Path(place) / "out"
            try:
                told = cut(str(model), str(data), budget, out=out, format=format, edits=edits, samples=samples)
            except BudgetError as why:
                print(f"{budget}: {why.message}")
                continue
            promised, found, now, pace = (told["latency"][name] for name in ("promised", "measured", "uncut", "pace"))
            about, ms = load_menu(out / "menu").about, {"uncut_ms": now / pace, "promised_ms": promised}
            ms |= {"measured_ms": found, "uncut_now_ms": now}
            summed = now / pace - (now / pace - promised) / about["saved"]
            row = {"model": model.name, "format": format, "share": share, "budget": budget}
            row |= {name: f"{1e3 * value:.3f}" for name, value in ms.items()} | {"pace": f"{pace:.3f}"}
            row |= {"off": f"{found / pace / promised - 1:+.3f}", "off_promise": f"{found / promised - 1:+.3f}"}
            row |= {"off_sum": f"{found / pace / summed - 1:+.3f}", "trials": len(about["trials"])}
            row |= {"kl": f"{told['kl']:.4g}", "threads": torch.get_num_threads()}
            print(row, flush=True)
            rows = harness.ROOT / "benchmarks" / "latency.csv"
            harness.write_rows(rows, [row | harness.stamp()], key=("model", "format", "share"))


if __name__ == "__main__":
    main()
