"""Do columns with widths of their own beat columns of equal width, at the same bits and both with error feedback?

    PYTHONPATH=src python -m benchmarks.claims.baq [MODEL CALIBRATION HELDOUT]

The effect is the KL to the original of BAQ over that of GPTQ at 3 bits (a range per row, nothing per group; the list of
widths counted), a tiny trained model a seed. `about` has 2 bits, and the match that kernels can run: groups of 64 with
a scale and a zero point each, at their own 3.297 bits. With a model and two texts it prints the same for that model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness, tiny
from secateur.maths.factor import unit_upper
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import feedback
from secateur.methods.quantize.baq import baq_columns, gptq

GROUP = 64
GROUPED = 3 + (16 + 3) / GROUP
ABOUT: dict[str, list[float]] = {}


def trial(seed: int) -> tuple[float, float]:
    _, calibration, measuring = tiny.text()
    calibrate, measure = (tiny.windows(stream, 96, 2000 + seed) for stream in (calibration, measuring))
    found = compare(tiny.trained(seed), calibrate, measure)
    for name, value in found.items():
        ABOUT.setdefault(name, []).append(round(value, 6))
    return found["baq 3"], found["gptq 3"]


def compare(model, calibrate: Tensor, measure: Tensor) -> dict[str, float]:
    """KL in nats per token of every rule on this model."""
    before, gram = tiny.logits(model, measure), tiny.grams(model, calibrate)
    weights = {name: part.weight.data.float() for name, part in tiny.linears(model).items()}

    def kl(rule) -> float:
        with tiny.wearing(model, {name: rule(w, gram[name]) for name, w in weights.items()}):
            return tiny.divergence(tiny.logits(model, measure), before)

    rules = {f"gptq {bits}": lambda w, a, bits=bits: gptq(w, a, 2.0**bits)[0].values for bits in (2, 3)}
    rules |= {f"baq {bits:.4g}": lambda w, a, bits=bits: baq_columns(w, a, bits).values for bits in (2, 3, GROUPED)}
    return {name: kl(rule) for name, rule in (rules | {f"gptq in groups {GROUPED:.4g}": grouped}).items()}


def grouped(w: Tensor, a: Tensor) -> Tensor:
    """GPTQ at 3 bits with a scale and a zero point for every 64 inputs."""
    u, _, _ = unit_upper(a, 0.01)
    return feedback(w, Affine(3, GROUP, symmetric=False).fit(w, a.diagonal().float()), u.float())


def of_files(folder: str, *texts: str) -> dict[str, float]:
    """The same for a model in Hugging Face layout; windows of 256 tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)

    def windows(file: str, count: int) -> Tensor:
        ids = torch.tensor(words(Path(file).read_text(encoding="utf-8"))["input_ids"])
        rows = ids[: len(ids) // 256 * 256].view(-1, 256)
        return rows[torch.linspace(0, len(rows) - 1, count).long()]

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return compare(model, windows(texts[0], 128), windows(texts[1], 64))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps({name: round(value, 6) for name, value in of_files(*sys.argv[1:]).items()}))
    else:
        text = "columns with widths of their own diverge less than equal widths at 3 bits, both with error feedback"
        harness.claim("baq", text, trial, seeds=5, about=ABOUT)
        means = {name: round(float(np.exp(np.log(values).mean())), 6) for name, values in ABOUT.items()}
        print(f"KL, geometric means: {means}", file=sys.stderr)
