"""A pool of text of three kinds, of which one is wanted: what claims about choosing examples are measured on.

Windows of 128 bytes of Python's library: code, tables (its encodings), and prose (the help on its topics). The network
is one that was trained on code alone (`tiny.py`). Those that are wanted, and those that a choice is judged by, come
from other parts of the prose than those in the pool.
"""

from __future__ import annotations

import copy
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import tiny
from secateur.parts.eyes import places, sure

CODE, TABLES, PROSE = 0, 1, 2


@dataclass(frozen=True)
class Pool:
    """Windows, the kind of each, and what the network makes of them."""

    model: Any
    windows: Tensor
    kinds: Tensor
    vectors: Tensor
    entropy: Tensor
    target: Tensor  # windows of prose that are wanted
    target_vectors: Tensor
    judged: Tensor  # windows of prose that nobody chooses from


def pool(seed: int, counts: tuple[int, int, int] = (700, 200, 100), wanted: int = 20) -> Pool:
    """A pool of so many windows of code, tables and prose, in mixed order."""
    root, model = Path(sysconfig.get_paths()["stdlib"]), tiny.trained(seed)
    tables = b"\n".join(file.read_bytes() for file in sorted((root / "encodings").glob("cp*.py")))
    prose = torch.frombuffer(bytearray((root / "pydoc_data" / "topics.py").read_bytes()), dtype=torch.uint8)
    half, most = len(prose) // 2, 3 * len(prose) // 4
    streams = (tiny.text()[2], torch.frombuffer(bytearray(tables), dtype=torch.uint8), prose[:half])
    parts = [tiny.windows(stream, n, 2000 + seed) for stream, n in zip(streams, counts, strict=True)]
    mixed = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed))
    windows = torch.cat(parts)[mixed]
    kinds = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))[mixed]
    target, judged = tiny.windows(prose[half:most], wanted, 3000 + seed), tiny.windows(prose[most:], 64, 4000 + seed)
    vectors, entropy = looked(model, windows)
    return Pool(model, windows, kinds, vectors, entropy, target, looked(model, target)[0], judged)


@torch.no_grad()
def looked(model: Any, windows: Tensor) -> tuple[Tensor, Tensor]:
    """The vector of every window, and its entropy in nats per byte."""
    states, entropy = [], []
    for part in windows.split(64):
        last = model.model(part).last_hidden_state
        states.append(places(last))
        entropy.append(sure(model.lm_head(last))["entropy"][:, :-1].mean(1))
    return torch.cat(states), torch.cat(entropy)


def others(prose: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of each kind that nobody chooses from: of other files, and the prose that is given."""
    root = Path(sysconfig.get_paths()["stdlib"])
    tables = b"\n".join(file.read_bytes() for file in sorted((root / "encodings").glob("iso*.py")))
    streams = tiny.text()[1], torch.frombuffer(bytearray(tables), dtype=torch.uint8)
    code, table = (tiny.windows(stream, len(prose), 5000 + seed) for stream in streams)
    return code, table, prose


def loss_after(model: Any, windows: Tensor, judged: Tensor, seed: int, steps: int = 60, rate: float = 1e-3) -> float:
    """The loss on `judged`, nats per byte, of a copy of the network that has learned from the windows."""
    learner = copy.deepcopy(model).train()
    draw = torch.Generator().manual_seed(seed)
    tiny.learn(learner, lambda _: windows[torch.randint(len(windows), (16,), generator=draw)], steps, rate)
    return tiny.loss(tiny.logits(learner.eval(), judged), judged)
