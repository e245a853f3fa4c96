"""One training, many sizes: every slice of a sorted training, and of an ordinary one of as many steps that is cut off.

    PYTHONPATH=src:benchmarks python benchmarks/one_training.py stories260k resnet20_jpeg   # 15 min on two cores
    PYTHONPATH=src:benchmarks python benchmarks/one_training.py --draw

By `secateur.train` as anyone would call it, from weights that have learned already, whose channels are put in order in
both. Losses are measured on text (pictures) that neither training has seen. Rows go into benchmarks/one_training.csv,
the figure into docs/guides/one-training.svg.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import ROOT, stamp, write_rows

from secateur.model.stream import device_of
from secateur.train import train
from secateur.train.draw import batches
from secateur.train.judging import row
from secateur.train.subject import elastic_of, open_subject

TABLE, FIGURE = ROOT / "benchmarks" / "one_training.csv", ROOT / "docs" / "guides" / "one-training.svg"
SHARED = ROOT.parent / "shared"
TEXT: dict[str, Any] = {"elastic": "width,depth", "seq_len": 128, "steps": 400}
PICTURES: dict[str, Any] = {"elastic": "width,depth:3", "batch": 32, "steps": 300}
#: model, what it learns, what it is measured on, how
JOBS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "stories260k": ("models/stories260k", "data/stories.txt", "data/stories_valid.txt", TEXT),
    "resnet20_jpeg": (
        "models/cifar_resnet/resnet20_jpeg.safetensors",
        "data/cifar10/train_5000.npz",
        "data/cifar10/test_2000.npz",
        PICTURES,
    ),
}
TRAININGS = {"one sorted training": "uniform", "ordinary, cut off": "whole"}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("names", nargs="*")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--draw", action="store_true")
    words = asked.parse_args()
    for name in words.names:
        for training, policy in TRAININGS.items():
            with TemporaryDirectory() as place:
                rows = measured(name, policy, words.seed, Path(place) / "out")
            told = stamp() | {"network": name, "training": training, "seed": words.seed}
            write_rows(TABLE, [told | one for one in rows], key=("network", "training", "seed", "slice"))
    if words.draw:
        draw()


def measured(name: str, policy: str, seed: int, out: Path) -> list[dict[str, Any]]:
    model, data, test, how = JOBS[name]
    told = train(str(SHARED / model), str(SHARED / data), out=out, policy=policy, seed=seed, **how)
    print(name, policy, f"{told['seconds']:.0f} s", told["loss_before"], told["loss_after"], flush=True)
    subject = open_subject(str(out), device_of(), None)
    net = subject.supernet(elastic_of(str(out)))
    first, held = subject.judged(str(SHARED / test), how.get("seq_len"), 64 if "seq_len" in how else 1000, seed)
    known = None if first is None else batches(subject, first)
    rows = []
    for one in net.grid():
        found = row(subject, net, dict(one.sizes), known, held)
        counts = ", ".join(f"{axis} {count}" for axis, count in found.pop("counts").items())
        rows.append({**found, "slice": counts, "loss": round(found["loss"], 4), "seconds": round(told["seconds"])})
        print(counts, rows[-1]["loss"], rows[-1].get("accuracy", ""), flush=True)
    return rows


def draw() -> None:
    from secateur.report.pictures import alone
    from secateur.report.slices import curve

    with TABLE.open(newline="") as file:
        rows = [one for one in csv.DictReader(file) if one["network"] == "stories260k"]
    series: dict[str, list[dict[str, Any]]] = {}
    for one in rows:
        counts = dict(part.split(" ", 1) for part in one["slice"].split(", "))
        point = {"counts": counts, "bytes": int(one["bytes"]), "flops": int(one["flops"]), "loss": float(one["loss"])}
        series.setdefault(one["training"], []).append(point)
    style = (ROOT / "src" / "secateur" / "report" / "page.css").read_text(encoding="utf-8")
    FIGURE.write_text(alone(curve(series), style), encoding="utf-8")


if __name__ == "__main__":
    main()
