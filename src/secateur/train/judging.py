"""How good a slice is: its loss on what was held back, its normalisations renewed where it has some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from secateur.measure.compare import Comparison, sums
from secateur.model.elastic import Slice, Supernet, counts, full, sliced
from secateur.model.norms import renewed
from secateur.train.subject import Subject


@contextmanager
def worn(subject: Subject, net: Supernet, one: Slice, known: Sequence[Tensor] | None) -> Iterator[None]:
    """Inside, the network is a slice in eval mode; `known` are batches that renew its normalisations' statistics, which
    those of the whole network need not."""
    mode = subject.network.training
    subject.network.eval()
    with ExitStack() as undo:
        undo.enter_context(sliced(subject.network, net, one))
        if known and one != full(net.axes):
            undo.enter_context(renewed(subject.network, known))
        yield
    subject.network.train(mode)


@torch.no_grad()
def judged(subject: Subject, net: Supernet, one: Slice, known: Sequence[Tensor] | None, held: Any) -> Comparison:
    """The losses of a slice on what was held back."""
    found, rows = Comparison(), subject.rows(held)
    with worn(subject, net, one, known):
        for start in range(0, len(held), rows):
            logits, labels = subject.answers(subject.some(held, torch.arange(start, min(start + rows, len(held)))))
            found.add(sums(logits, labels), labels.shape[1])
    return found


def row(
    subject: Subject, net: Supernet, sizes: Mapping[str, float], known: Sequence[Tensor] | None, held: Any
) -> dict[str, Any]:
    """A slice as a table has it: its sizes, what it spends, and its loss."""
    one = Slice(tuple((axis.name, sizes[axis.name]) for axis in net.axes))
    found = judged(subject, net, one, known, held)
    out = {"slice": dict(one.sizes), "counts": counts(net, one), **subject.spent(net, one)}
    out |= {"loss": found.loss, "loss_error": found.loss_error}
    return out | ({"accuracy": found.accuracy} if subject.goal.each == "example" else {})
