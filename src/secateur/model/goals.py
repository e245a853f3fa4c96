"""What a training learns: from a batch to logits and labels; and which examples each pass reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.model.pictures import Prepare


@dataclass(frozen=True)
class Goal:
    """Logits [places, classes] of a batch and its labels [places]; a loss is counted by `each` of them."""

    each: str
    logits: Callable[[nn.Module, Any], Tensor]
    labels: Callable[[Any], Tensor]


def next_token() -> Goal:
    """Of windows of tokens [windows, length], what comes next at every place but the last."""

    def logits(model: nn.Module, ids: Tensor) -> Tensor:
        return model(ids[:, :-1], use_cache=False).logits.flatten(0, 1)

    return Goal("token", logits, lambda ids: ids[:, 1:].flatten())


def label(prepare: Prepare) -> Goal:
    """Of `Pictures`, what each shows."""
    return Goal("example", lambda model, some: model(prepare(some.x)), lambda some: some.labels)


def order(n: int, batch: int, seed: int) -> Callable[[int], Tensor]:
    """Which of `n` examples a pass reads: all of them once, in an order drawn anew each time; `batch` at most `n`.

    Passes are numbered from 0, and any can be asked for.
    """
    each, known = n // batch, {}

    def of(at: int) -> Tensor:
        epoch, place = divmod(at, each)
        if epoch not in known:
            known.clear()
            known[epoch] = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        return known[epoch][place * batch : (place + 1) * batch]

    return of
