"""The language model that claims about rounding are measured on: `lm-small` of the shared folder, else the demo's.

Only the linear layers inside the blocks are cut; what is measured is the KL to the uncut model, nats per token, on text
that nobody calibrated on. A seed draws the calibration windows.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import harness, tiny
from secateur.model.checkpoint import open_checkpoint
from secateur.model.factors import Factors, backward
from secateur.model.stream import Stream
from secateur.model.text import windows

#: calibration windows a seed, and measuring windows; 256 tokens in each, 128 for the demo's model
CALIBRATE, MEASURE = 64, 32


@dataclass(frozen=True)
class Patient:
    """A model in memory, where it lies, its two texts, and what it says to the measuring windows."""

    name: str
    model: Any
    folder: Path
    calibration: Path
    measuring: Tensor
    reference: Tensor

    def weights(self) -> dict[str, Tensor]:
        """[rows, cols], float32, of every linear layer inside the blocks, by the layer's name."""
        return {name: part.weight.data.float() for name, part in tiny.linears(self.model).items()}

    def draw(self, seed: int) -> Tensor:
        """Calibration windows."""
        return windows(self.calibration, self.folder, CALIBRATE, self.measuring.shape[1], seed)[0]

    def grams(self, tokens: Tensor) -> dict[str, Tensor]:
        """Plain E[x x'] of the inputs, [cols, cols]: the paper's statistic."""
        return {name: a.float() for name, a in tiny.grams(self.model, tokens).items()}

    def factors(self, tokens: Tensor, seed: int) -> dict[str, Factors]:
        """Both Kronecker factors, as `secateur survey` gathers them."""
        stream = Stream(open_checkpoint(str(self.folder)))
        units = tuple(unit for unit in stream.anatomy.units if unit.block is not None)
        found: dict[str, Factors] = {}
        for _, factors in backward(stream, tokens, units, seed=seed):
            found |= {key.removesuffix(".weight"): one for key, one in factors.items()}
        return found

    def kl(self, rounded: dict[str, Tensor], part: slice = slice(None)) -> float:
        """KL of the uncut model to the one that wears these weights, nats per token, on some of the windows."""
        with tiny.wearing(self.model, rounded):
            return tiny.divergence(tiny.logits(self.model, self.measuring[part]), self.reference[part])

    def bits(self, grid: Any) -> float:
        """Bits per weight of all its linear layers on this grid, scales included."""
        shapes = [w.shape for w in self.weights().values()]
        return sum(grid.payload_bits(*shape) for shape in shapes) / sum(shape.numel() for shape in shapes)


@cache
def small() -> Patient:
    """`lm-small` and its texts where the shared folder is; elsewhere the demo's model, with a word on stderr."""
    from transformers import AutoModelForCausalLM

    shared, length = harness.ROOT.parent / "shared", 256
    folder, name = shared / "models" / "lm-small", "lm-small"
    calibration, heldout = (shared / "data" / "lm" / f"{pile}.txt" for pile in ("calib", "heldout"))
    if not folder.exists():
        from secateur.demo import prepare

        print("no ../shared beside the repository: measured on the demo's model instead of lm-small", file=sys.stderr)
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "secateur" / "demo"
        folder, calibration, heldout = prepare(home)
        name, length = "the demo's model", 128
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    measuring = windows(heldout, folder, MEASURE, length)[0]
    return Patient(name, model, folder, calibration, measuring, tiny.logits(model, measuring))
