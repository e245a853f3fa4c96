"""Every linear layer of the blocks of `lm-small` on one block type of ggml: the C encoder's way against ours.

    PYTHONPATH=src python benchmarks/blocks_kl.py [q2_k q3_k ...] [--date 2026-11-25]

`c` is the real encoder with an importance matrix (A's diagonal of the same text), `nearest` our scales alone, `one` and
`two` error feedback along the columns and along both. `metric` is the damage in the factors that rounding saw, and
`metric_held` the same weights in factors of other text (what overfits shows as their ratio, against that of `c`);
`kl` is measured on held-back text, in memory. All per token. Appends to blocks_kl.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from secateur.maths.grids import blocks
from secateur.maths.rounding import damage
from secateur.maths.settle import settle
from secateur.model.checkpoint import open_checkpoint
from secateur.model.factors import Factors, backward
from secateur.model.matrix import view
from secateur.model.stream import Stream
from secateur.model.text import windows

sys.path.insert(0, str(Path(__file__).parent))
from blocks import Encoder

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared"
MODEL = SHARED / "models/lm-small"
N, WIDTH = 128, 256


def gathered(text: Path, seed: int) -> dict[str, tuple[Tensor, Factors]]:
    """Weights and factors of every matrix inside the blocks, from some windows of a text."""
    checkpoint = open_checkpoint(str(MODEL))
    stream = Stream(checkpoint)
    tokens, _ = windows(str(text), checkpoint.folder, N, WIDTH, seed, context=WIDTH)
    out = {}
    for units, factors in backward(stream, tokens, stream.anatomy.units):
        for unit in (unit for unit in units if unit.block is not None):
            with stream.loaded(stream.blocks[unit.block]):
                for m in unit.matrices:
                    out[m.key] = view(stream.network, m).float().clone(), factors[m.key]
    return out


def cut(kind: str, way: str, w: Tensor, f: Factors, encoder: Encoder) -> Tensor:
    if way == "c":
        return blocks.decode(kind, encoder(kind, w, f.a.diagonal().float()))
    return settle(w, blocks.grid(kind), f.a, f.g, sides={"nearest": 0, "one": 1, "two": 2}[way]).values


@torch.no_grad()
def logits(network: torch.nn.Module, tokens: Tensor) -> Tensor:
    return torch.cat([network(rows).logits.log_softmax(-1) for rows in tokens.split(8)])


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("kinds", nargs="*", default=["q2_k", "q3_k", "q4_k"])
    asked.add_argument("--date", default=date.today().isoformat())
    said = asked.parse_args()
    seen, held = (gathered(SHARED / f"data/lm/{name}.txt", seed) for seed, name in enumerate(("calib", "heldout")))
    encoder = Encoder.found()
    network = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    tokens, _ = windows(str(SHARED / "data/lm/heldout.txt"), MODEL, 64, WIDTH, 7, context=WIDTH)
    before = logits(network, tokens)
    file = HERE / "blocks_kl.csv"
    fresh = not file.exists()
    with file.open("a", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        if fresh:
            table.writerow(["date", "kind", "way", "metric", "metric_held", "kl"])
        for kind in said.kinds:
            for way in ("c", "nearest", "one", "two"):
                sums = [0.0, 0.0]
                for key, (w, f) in seen.items():
                    values = cut(kind, way, w, f, encoder)
                    network.get_parameter(key).data.copy_(values)
                    for at, one in enumerate((f, held[key][1])):
                        sums[at] += float(damage(w - values, one.a.float(), one.g.float()))
                after = logits(network, tokens)
                kl = float((before.exp() * (before - after)).sum(-1).mean())
                table.writerow([said.date, kind, way, *(f"{x:.4g}" for x in (*sums, kl))])
                out.flush()
                print(kind, way, *sums, kl, flush=True)


if __name__ == "__main__":
    main()
