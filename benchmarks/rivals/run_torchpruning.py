"""Torch-Pruning on an image model of ours, nothing trained: its importances, local and global, at shares of the FLOPs.

    PYTHONPATH=src VENVS/v-torchpruning/bin/python benchmarks/rivals/run_torchpruning.py resnet20_jpeg.safetensors \\
        --known train.npz --unknown test.npz --shares 0.8 0.5 [--seed 0] [--samples 1500] > rows.jsonl

The network is built from our definitions, so that both sides cut the same one, and FLOPs are counted by us. The share
of channels is found by bisection, so that FLOPs come to what is asked or a little less. Statistics of all batch
normalisations are then renewed on the pictures for calibration. Residual networks lose inner channels of their blocks:
Torch-Pruning cannot follow a shortcut that adds empty channels.

Gradients and their squares are gathered once and given to every trial. Of 1.6.1's `hessian` its own bookkeeping keeps
the last example alone (it looks a parameter up by its name); here it gets the sum over the examples, as it says. Its
`obdc` stops in its own preparation, whatever the network, and is left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from secateur.bench.rivals.torch_pruning import left_alone, renew
from secateur.model import builtin
from secateur.model.flops import flops

#: pictures for first-order scores, for second-order ones, and at most channels that go
FIRST, SECOND, MOST = 1000, 200, 0.95
IMPORTANCES = ("random", "magnitude", "bnscale", "lamp", "fpgm", "taylor", "hessian")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("network", type=Path)
    asked.add_argument("--known", type=Path, required=True)
    asked.add_argument("--unknown", type=Path, required=True)
    asked.add_argument("--shares", type=float, nargs="+", required=True)
    asked.add_argument("--importances", nargs="+", default=IMPORTANCES)
    asked.add_argument("--rankings", nargs="+", default=("local", "global"))
    asked.add_argument("--name", help="what to call the network; its file's name")
    asked.add_argument("--samples", type=int, default=1500)
    asked.add_argument("--seed", type=int, default=0)
    words = asked.parse_args()
    torch.manual_seed(words.seed)
    torch.set_num_threads(1)  # two threads are slower than one on a small shared machine
    network, prepare = opened(words.network)
    x, labels = pictures(words.known, prepare)
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(words.seed))[: words.samples]
    patient = Patient(network, x[some], labels[some])
    unseen = pictures(words.unknown, prepare)
    plain = logits(network, unseen[0])
    for importance in words.importances:
        for ranking in words.rankings:
            for share in words.shares:
                begun = time.process_time()
                cut, left = patient.to(importance, ranking == "global", share, words.seed)
                seconds = time.process_time() - begun
                row = {
                    "network": words.name or words.network.stem,
                    "tool": "torch-pruning",
                    "version": version("torch-pruning"),
                }
                row |= {"method": f"{importance}, {ranking}", "budget": share, "seed": words.seed, "flops": left}
                row |= scored(logits(cut, unseen[0]), plain, unseen[1]) | {"cpu_s": seconds}
                print(json.dumps(row), flush=True)


def opened(file: Path) -> tuple[nn.Module, Any]:
    tensors = load_file(file)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    made = builtin.recognise(file.stem, shapes)
    return builtin.filled(made.build(shapes), tensors, str(file)), builtin.prepared(made, file.stem, shapes)


def pictures(file: Path, prepare: Any) -> tuple[Tensor, Tensor]:
    with np.load(file) as held:
        x = held["images"] if "images" in held else held["features"]
        return prepare(torch.from_numpy(x)), torch.from_numpy(held["labels"].astype("int64"))


@torch.no_grad()
def logits(network: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([network(x[at : at + 250]) for at in range(0, len(x), 250)])


def scored(ours: Tensor, plain: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy, loss and KL to the original; `right` is one character a picture, to draw intervals from."""
    right = ours.argmax(1) == labels
    old, new = plain.log_softmax(1), ours.log_softmax(1)
    return {
        "accuracy": float(right.double().mean()),
        "accuracy_before": float((plain.argmax(1) == labels).double().mean()),
        "loss": float(F.cross_entropy(ours, labels)),
        "kl": float((old.exp() * (old - new)).sum(1).mean()),
        "right": "".join("01"[one] for one in right.tolist()),
    }


class Patient:
    """A network, pictures to calibrate on, and what they say of its parameters."""

    def __init__(self, network: nn.Module, x: Tensor, labels: Tensor):
        self.network, self.x, self.labels = network, x, labels
        self.before = sum(flops(network, x[:1]).values())
        self.first, self.second = {}, {}
        for name, value in self._gradients(slice(0, FIRST)).items():
            self.first[name] = value
        for at in range(min(SECOND, len(x))):
            for name, value in self._gradients(slice(at, at + 1)).items():
                self.second[name] = self.second.get(name, 0) + value.square()

    def _gradients(self, some: slice) -> dict[str, Tensor]:
        names, parameters = zip(*self.network.named_parameters(), strict=True)
        for parameter in parameters:
            parameter.requires_grad_(True)
        loss = F.cross_entropy(self.network(self.x[some]), self.labels[some])
        return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))

    def to(self, importance: str, everywhere: bool, share: float, seed: int) -> tuple[nn.Module, float]:
        """The network with so much of its FLOPs left at most, statistics renewed, and how much is left."""
        low, high = 0.0, MOST
        for _ in range(8):
            middle = (low + high) / 2
            fits = self._cut(importance, everywhere, middle, seed)[1] <= share
            low, high = (low, middle) if fits else (middle, high)
        cut, left = self._cut(importance, everywhere, high, seed)
        renew(cut, self.x)
        return cut, left

    def _cut(self, importance: str, everywhere: bool, ratio: float, seed: int) -> tuple[nn.Module, float]:
        import torch_pruning as tp

        torch.manual_seed(seed)
        network = copy.deepcopy(self.network)
        score = {
            "random": tp.importance.RandomImportance,
            "magnitude": tp.importance.GroupMagnitudeImportance,
            "bnscale": tp.importance.BNScaleImportance,
            "lamp": tp.importance.LAMPImportance,
            "fpgm": tp.importance.FPGMImportance,
            "taylor": tp.importance.GroupTaylorImportance,
            "hessian": tp.importance.GroupHessianImportance,
        }[importance]()
        pruner = tp.pruner.BasePruner(
            network,
            self.x[:1],
            importance=score,
            global_pruning=everywhere,
            pruning_ratio=ratio,
            max_pruning_ratio=MOST,
            ignored_layers=left_alone(network, self.x[:1]),
        )
        if importance in ("taylor", "hessian"):
            for name, parameter in network.named_parameters():
                parameter.grad = self.first[name].clone()
        if importance == "hessian":
            parameters = dict(network.named_parameters())
            score._accu_grad = {parameters[name]: value.clone() for name, value in self.second.items()}
            score._counter = dict.fromkeys(parameters.values(), min(SECOND, len(self.x)))
        pruner.step()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        return network.eval(), sum(flops(network, self.x[:1]).values()) / self.before


if __name__ == "__main__":
    began = time.time()
    main()
    print(f"{time.time() - began:.0f} s", file=sys.stderr)
