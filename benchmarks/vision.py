"""Image models cut to FLOPs and to bytes, judged on test pictures that nothing else has seen.

    PYTHONPATH=src:benchmarks python benchmarks/vision.py resnet20_jpeg "60% flops" "50% flops"
    PYTHONPATH=src:benchmarks python benchmarks/vision.py resnet20_jpeg "4 bits/weight" --format packed

One survey a network, then a plan, an apply and a measurement for every budget, all through the front door. Calibration
is on `train_5000.npz` (of the keyword spotter, which has no training part, on half of its test part), the report on
`test_2000.npz` (the other half). No weight is trained. Rows go into benchmarks/vision.csv. `--work` keeps the survey,
so that other budgets take it up. ResNet-20 at two budgets: a quarter of an hour on a free core.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from harness import ROOT, stamp, write_rows

from secateur.cut import apply, plan, survey
from secateur.measure import measure
from secateur.parts.menus import save_plan

TABLE = ROOT / "benchmarks" / "vision.csv"
SHARED = ROOT.parent / "shared"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("network", help="resnet20_jpeg, resnet56 ..., or kws_dscnn")
    asked.add_argument("budgets", nargs="+")
    asked.add_argument("--format", default="safetensors")
    asked.add_argument("--samples", type=int, default=1500)
    asked.add_argument("--work", type=Path)
    words = asked.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = words.work or Path(place)
        model, known, unknown = files(words.network, Path(place))
        channels = any("flops" in budget for budget in words.budgets)
        how = {"samples": words.samples, "format": words.format}
        menu = work / ("menu-channels" if channels else "menu")
        survey(model, known, out=menu, channels=channels, **how)
        for budget, chosen in zip(words.budgets, plan(menu, words.budgets), strict=True):
            save_plan(chosen, work / "plan.yaml")
            out = Path(place) / "out"
            told = apply(model, work / "plan.yaml", data=known, out=out, menu=menu, samples=words.samples, resume=False)
            row = figures(words.network, budget, words.format, told, model, str(out), unknown)
            write_rows(TABLE, [row], key=("network", "budget", "format"))
            print(row)


def files(network: str, place: Path) -> tuple[str, str, str]:
    """The model, the data to calibrate on, and the data to report on."""
    if network == "kws_dscnn":
        with np.load(SHARED / "data/kws/test_500.npz") as held:
            parts = {name: held[name] for name in ("features", "labels")}
        for name, half in (("known", slice(0, None, 2)), ("unknown", slice(1, None, 2))):
            np.savez(place / f"{name}.npz", **{key: value[half] for key, value in parts.items()})
        model = SHARED / "models/kws_dscnn/model.safetensors"
        return str(model), str(place / "known.npz"), str(place / "unknown.npz")
    data = SHARED / "data/cifar10"
    model = SHARED / f"models/cifar_resnet/{network}.safetensors"
    return str(model), str(data / "train_5000.npz"), str(data / "test_2000.npz")


def figures(network: str, budget: str, form: str, told: dict, model: str, out: str, data: str) -> dict:
    before, after = measure([model, out], data, against=model)["rows"]
    return {
        "network": network,
        "budget": budget,
        "format": form,
        "flops": f"{after['flops'] / before['flops']:.4f}",
        "bytes": after["bytes"],
        "bits_per_weight": f"{after['bits_per_weight']:.3f}",
        "accuracy_before": f"{before['accuracy']:.4f}",
        "accuracy": f"{after['accuracy']:.4f}",
        "accuracy_error": f"{after['accuracy_error']:.4f}",
        "rise": f"{after['rise']:.4f}",
        "kl": f"{after['kl']:.4f}",
        "kl_error": f"{after['kl_error']:.4f}",
        "kl_predicted": f"{told['kl_predicted']:.4f}",
        "kl_held": f"{told['kl']:.4f}",
        "seconds": f"{told['seconds']:.0f}",
        **stamp(),
    }


if __name__ == "__main__":
    main()
