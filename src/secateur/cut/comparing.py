"""The cut network against the uncut one, from the states behind their last blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from secateur.cut.case import Case, Samples
from secateur.measure.compare import Comparison, sums
from secateur.model.matrix import place
from secateur.model.parked import States
from secateur.types import Matrix


def compare(
    case: Case,
    windows: Samples,
    plain: States,
    cut: States,
    put: Mapping[Matrix, Tensor],
    see: Callable[[Tensor, Tensor, Tensor], None] = lambda states, theirs, ours: None,
) -> Comparison:
    """The cut network against the network as it is, from the states behind their last blocks; `put` are the matrices
    that are cut outside the blocks. `see` gets the uncut network's states and both networks' logits, some windows at a
    time."""
    out, step = Comparison(), case.stream.windows(plain.shape[1])
    with torch.no_grad(), _tails(case, put) as tails:
        for start in range(0, len(windows), step):
            some = slice(start, start + step)
            states = plain[some].to(case.device)
            theirs, ours = tails(states, cut[some].to(case.device))
            scored, labels = case.stream.answers(ours, windows[some])
            out.add(sums(scored, labels, case.stream.answers(theirs, windows[some])[0]), labels.shape[1])
            see(states, theirs, ours)
    return out


@contextmanager
def _tails(case: Case, put: Mapping[Matrix, Tensor]) -> Iterator[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Logits of both networks; only one head is in memory at a time."""
    stream = case.stream
    put = {m: w for m, w in put.items() if stream.anatomy.tied or place(m).module != stream.anatomy.embedding}

    def both(plain: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        with stream.tail() as tail:
            theirs = tail(plain)
        with stream.tail(put) as tail:
            return theirs, tail(cut)

    if put:
        yield both
    else:
        with stream.tail() as tail:
            yield lambda plain, cut: (tail(plain), tail(cut))
