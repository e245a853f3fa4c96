"""The cheap statistics pass: how the inputs of every matrix are spread, forward alone, every token alike.

What GPTQ and its kin go by: A = E[x x'], and nothing is known of what an output is worth. So G is 1 for every output
(its diagonal, [rows]), and damages from these factors are squared output errors, not nats. A third of the work of
`factors.backward`; a broken run begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.maths.sums import Gram
from secateur.model.factors import Factors
from secateur.model.stream import Stream
from secateur.model.watch import watch
from secateur.types import Matrix, Unit


def forward(
    stream: Stream,
    tokens: Tensor,
    units: tuple[Unit, ...],
    work: Path | None = None,
    tell: Callable[[str, int, int], None] = lambda *_: None,
) -> Iterator[tuple[tuple[Unit, ...], dict[str, Factors]]]:
    """Units and the factors of their matrices: what stands before the blocks, every block, and what stands behind."""
    n, places = len(stream.blocks), stream.places(tokens)
    outside = tuple(unit for unit in units if unit.block is None)
    with stream.front() as front:
        seen = _Seen(outside, stream.device)
        with torch.no_grad(), watch(stream.network, seen.matrices, inputs=seen):
            for start in range(0, len(tokens), stream.batch):
                front(tokens[start : start + stream.batch])
    before = tuple(unit for unit in outside if any(m.tap in seen.grams or m.key in seen.counts for m in unit.matrices))
    yield before, seen.factors(before, places)
    hidden = stream.embed(tokens, work and work / "hidden-0", copies=1)
    for i in range(n):
        tell("forward", i, n)
        mine = tuple(unit for unit in units if unit.block == i)
        seen = _Seen(mine, stream.device)
        with stream.loaded(stream.blocks[i]), watch(stream.network, seen.matrices, inputs=seen):
            stream.through(i, hidden, hidden)
        yield mine, seen.factors(mine, places)
    tell("forward", n, n)
    behind = tuple(unit for unit in outside if unit not in before)
    seen = _Seen(behind, stream.device)
    step = stream.windows(hidden.shape[1])
    with torch.no_grad(), stream.tail() as tail, watch(stream.network, seen.matrices, inputs=seen):
        for start in range(0, len(hidden) if behind else 0, step):
            tail(hidden[start : start + step].to(stream.device))
    yield behind, seen.factors(behind, places)


class _Seen:
    """Grams of the inputs of some units, by tap; of an embedding, which looks rows up, how often each token came."""

    def __init__(self, units: Sequence[Unit], device: Any):
        self.matrices: tuple[Matrix, ...] = tuple(m for unit in units for m in unit.matrices)
        self.lookups = {m.tap: m for unit in units if unit.kind == "embedding" for m in unit.matrices}
        self.device = device
        self.cols = {m.tap: m.cols for m in self.matrices}
        self.grams: dict[str, Gram] = {}
        self.counts: dict[str, Tensor] = {}

    def __call__(self, tap: str, x: Tensor) -> None:
        if tap in self.lookups:
            matrix = self.lookups[tap]
            new = torch.bincount(x.flatten(), minlength=matrix.rows).float()
            self.counts[matrix.key] = self.counts.get(matrix.key, 0) + new
            return
        if tap not in self.grams:
            self.grams[tap] = Gram.empty(self.cols[tap], device=x.device)
        places = math.prod(x.shape[:-1])
        seen = self.grams[tap].tokens + places
        # a convolution's are examples x positions x columns; one of groups has theirs side by side, and A is their mean
        groups = max(1, x.shape[-1] // self.cols[tap])
        self.grams[tap].update(
            x.reshape(-1, self.cols[tap]) * groups**-0.5 if groups > 1 else x.reshape(-1, x.shape[-1])
        )
        self.grams[tap].tokens = seen

    def factors(self, units: Sequence[Unit], tokens: int) -> dict[str, Factors]:
        """What was gathered over a pass of `tokens` tokens (an expert sees only some of them)."""
        out = {}
        for m in (m for unit in units for m in unit.matrices):
            if m.key in self.counts:
                share = (self.counts[m.key] + 0.5) / (self.counts[m.key] + 0.5).sum()
                out[m.key] = Factors(torch.eye(m.cols, device=share.device), share, tokens, 0.0)
            elif m.tap in self.grams:
                gram = self.grams[m.tap]
                a = gram.mean() * (gram.tokens / tokens)
                out[m.key] = Factors(a, torch.ones(m.rows, device=a.device), gram.tokens, 0.0)
        return out
