"""One network reading all windows: block by block with its hidden states parked, or whole where it cannot be walked.

A network that is walked keeps the states behind its last block, and its head turns them to logits piece by piece. So
the reference is computed once for all models, memory holds one block, and logits of the whole text never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateur.measure.models import Model
from secateur.measure.speed import Clock
from secateur.model.parked import States
from secateur.model.stream import Stream
from secateur.types import ModelError

#: `tell(done, total)`: how far reading is
Tell = Callable[[int, int], None]
#: logits of these windows at these places
Logits = Callable[[slice, slice], Tensor]
#: of the logits at one place, how much may change with what comes after it; sums in another order stay far below
_SEES = 1e-3


class Pass(Protocol):
    """A network that has read the windows."""

    @property
    def clock(self) -> Clock: ...
    def logits(self) -> AbstractContextManager[Logits]: ...


@torch.no_grad()
def read(model: Model, tokens: Tensor, device: torch.device, park: Path, tell: Tell) -> Pass:
    """Read windows `windows x length`; hidden states are parked in the file `park` when they are many."""
    if model.reading is not None:
        try:
            return _walk(model, tokens, device, park, tell)
        # an architecture that does more between its blocks than hand on states fails in one of these ways; what is
        # wrong with the model itself comes up again when it is read whole
        except (ModelError, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, _SeesError):
                raise
    model.notes.append("read as a whole: it cannot be walked block by block")
    network = model.network().to(device)
    left_to_right(
        model.name,
        lambda x: network(x.to(device), use_cache=False).logits,
        tokens[:1],
        (tokens[:1] + 1) % model.vocabulary,
    )
    return _Whole(network, tokens, Clock(device))


def _walk(model: Model, tokens: Tensor, device: torch.device, park: Path, tell: Tell) -> Pass:
    stream, clock = Stream(model.reading, device), Clock(device)  # type: ignore[arg-type]  # it stands for a Checkpoint
    hidden = stream.embed(tokens, park, copies=2)  # the reference has its own
    n = len(stream.blocks)
    for i, block in enumerate(stream.blocks):
        tell(i, n)
        with stream.loaded(block):
            if i == 0:
                one = hidden[:1].to(device)
                left_to_right(model.name, lambda x: stream.call(0, x), one, one.flip(-1))
            with clock.running():
                stream.through(i, hidden, hidden)
    tell(n, n)
    return _Streamed(stream, hidden, clock)


class _SeesError(ModelError):
    """The network looks ahead."""


def left_to_right(name: str, run: Callable[[Tensor], Tensor], x: Tensor, other: Tensor) -> None:
    """_SeesError if what comes out depends on the last token before its turn, as in a network that reads both ways."""
    changed = x.clone()
    changed[:, -1] = other[:, -1]
    before, after = run(x)[:, :-1].float(), run(changed)[:, :-1].float()
    if float((before - after).norm()) > _SEES * float(before.norm()):
        raise _SeesError(
            f"{name} sees the tokens that it is to predict: it reads in both directions",
            "only models that read from left to right have a loss per token",
        )


@dataclass(frozen=True)
class _Streamed:
    stream: Stream
    hidden: States
    clock: Clock

    @contextmanager
    def logits(self) -> Iterator[Logits]:
        with self.stream.tail() as tail:
            yield lambda rows, places: tail(self.hidden[rows, places].to(self.stream.device))


@dataclass(frozen=True)
class _Whole:
    network: nn.Module
    tokens: Tensor
    clock: Clock

    @contextmanager
    def logits(self) -> Iterator[Logits]:
        kept: dict[Any, Tensor] = {}  # of the windows asked for last: pieces come window after window

        def at(rows: slice, places: slice) -> Tensor:
            key = rows.start, rows.stop
            if key not in kept:
                kept.clear()
                kept[key] = self.network(self.tokens[rows].to(self.clock.device), use_cache=False).logits
            return kept[key][:, places]

        yield at
