"""8-bit ResNet-56 and 4-bit linear layers in ONNX Runtime: the loss against ours, the time against float32.

    secateur cut ../shared/models/cifar_resnet/resnet56.safetensors --data ../shared/data/cifar10/train_5000.npz \
        --budget "8.5 bits/weight" --samples 200 --format onnx -o /tmp/r56
    secateur cut ../shared/models/lm-small --data ../shared/data/lm/calib.txt --budget "4.25 bits/weight" \
        --over linear --samples 64 --format onnx -o /tmp/lm
    PYTHONPATH=src python -m benchmarks.onnx /tmp/r56 /tmp/lm

Both files of a model run in one process, on one thread, in turns; the time is the fastest of each. `ours` has the
weights of the file and nothing else rounded: the same graph with inputs as they are, which `verify` holds against us.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import harness
from secateur.export._graph import FILE, OPSET, quiet, session
from secateur.export._pictures import _floats, _without_activations
from secateur.export.onnx import _rewrite_exact
from secateur.export.torch_export import traced
from secateur.model.anatomy import anatomy, load_block, skeleton
from secateur.model.checkpoint import open_checkpoint
from secateur.model.pictures import read_pictures
from secateur.model.text import windows
from secateur.parts.vision import open_vision

SHARED = harness.ROOT.parent / "shared"
ROUNDS = 7


def timed(runs: dict, feed: dict) -> dict[str, float]:
    """Seconds of the fastest of some runs each, in turns."""
    best = dict.fromkeys(runs, np.inf)
    for _ in range(ROUNDS):
        for name, runtime in runs.items():
            begun = time.perf_counter()
            runtime.run(None, feed)
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


def beside(folder: Path, content: bytes):
    """A session on another graph over the same data file."""
    file = folder / ".other.onnx"
    try:
        file.write_bytes(content)
        return session(file, 1)
    finally:
        file.unlink()


def pictures(folder: Path) -> list[dict[str, object]]:
    seen = open_vision(SHARED / "models/cifar_resnet/resnet56.safetensors")
    test = read_pictures(SHARED / "data/cifar10/test_2000.npz")
    x = seen.prepare(test.x).numpy()
    plain = session(_floats(seen.network, torch.zeros(2, *seen.prepare.shape)).SerializeToString(), 1)
    ours, shipped = beside(folder, _without_activations(folder / FILE)), session(folder / FILE, 1)

    def accuracy(runtime) -> float:
        made = [runtime.run(None, {"images": x[at : at + 100]})[0].argmax(1) for at in range(0, len(x), 100)]
        return float((np.concatenate(made) == test.labels.numpy()).mean())

    row = {"model": "resnet56", "what": "int8, accuracy on test_2000", "uncut": accuracy(plain)}
    row |= {"ours": accuracy(ours), "runtime": accuracy(shipped)}
    return [row | speed("8 pictures", {"plain": plain, "cut": shipped}, {"images": x[:8]})]


def text(folder: Path) -> list[dict[str, object]]:
    checkpoint = open_checkpoint(SHARED / "models/lm-small")
    empty = skeleton(checkpoint)
    network = load_block(checkpoint, anatomy(checkpoint, empty), "", empty)
    _, held = windows(str(SHARED / "data/lm/heldout.txt"), checkpoint.folder, 32, 256, 0, context=256, vocabulary=4096)
    with tempfile.TemporaryDirectory() as place:
        with quiet(), torch.no_grad():
            program = traced(network, "lm-small")
            made = torch.onnx.export(program, dynamo=True, opset_version=OPSET, input_names=["tokens"], verbose=False)
        made.save(Path(place) / FILE, external_data=True)
        plain = session(Path(place) / FILE, 1)
        _rewrite_exact(folder / FILE, folder / ".exact.onnx")
        ours, shipped = session(folder / ".exact.onnx", 1), session(folder / FILE, 1)
        (folder / ".exact.onnx").unlink()

        def loss(runtime) -> float:
            made = [torch.from_numpy(runtime.run(None, {"tokens": one[None].numpy()})[0])[0, :-1] for one in held]
            return float(torch.nn.functional.cross_entropy(torch.cat(made), held[:, 1:].flatten()))

        row = {"model": "lm-small", "what": "linears at 4.25 bits, loss on heldout.txt", "uncut": loss(plain)}
        row |= {"ours": loss(ours), "runtime": loss(shipped)}
        runs = {"plain": plain, "cut": shipped}
        return [row | speed(f"{n} tokens", runs, {"tokens": held[:1, :n].numpy()}) for n in (1, 256)]


def speed(what: str, runs: dict, feed: dict) -> dict[str, object]:
    best = timed(runs, feed)
    told = {"timed": what, "float32_ms": round(1e3 * best["plain"], 3), "cut_ms": round(1e3 * best["cut"], 3)}
    return told | {"speed_up": round(best["plain"] / best["cut"], 2)}


if __name__ == "__main__":
    rows = [*pictures(Path(sys.argv[1])), *text(Path(sys.argv[2]))]
    for row in rows:
        print(row)
    rows = [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    harness.write_rows(harness.ROOT / "benchmarks" / "onnx.csv", [row | harness.stamp() for row in rows])
