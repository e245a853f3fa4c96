"""One training loop, with four places where a method plugs in (`Plugs`).

Whatever is drawn in a step hangs on the seed and the step's number alone, and `batches` says which pass reads what. So
a run that was killed goes on from its last checkpoint and ends with the same bytes; no generator's state is kept.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.model.goals import Goal
from secateur.model.history import History
from secateur.model.resume import Keep
from secateur.types import SecateurError


class DivergedError(SecateurError):
    """The loss of a training is no number any more."""


@dataclass(frozen=True)
class Moment:
    """Where in a training one is: step `step` of `steps`, pass `part` of its `parts`, all counted from 0."""

    step: int
    steps: int
    part: int = 0
    parts: int = 1
    seed: int = 0

    def random(self, what: str = "") -> torch.Generator:
        """A source of chance for `what`, the same for all passes of a step."""
        return torch.Generator().manual_seed(self.number(what))

    def number(self, what: str) -> int:
        """Sixty-three bits that hang on seed, step and `what`."""
        return int.from_bytes(hashlib.sha256(f"{self.seed} {self.step} {what}".encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Plugs:
    """What a method does inside the loop; what it leaves out is as in an ordinary training."""

    #: which examples of a batch are learned from
    select: Callable[[Moment, Any], Any] = lambda _, batch: batch
    #: what is added to the loss of a pass, from its batch and logits: a teacher, a penalty
    extra: Callable[[Moment, Any, Tensor], Tensor | float] = lambda *_: 0.0
    #: what the weights wear during one pass forward and backward
    dress: Callable[[Moment], AbstractContextManager[Any]] = lambda _: nullcontext()
    #: what is done behind a step: a projection, a regrowth
    each_step: Callable[[Moment], None] = lambda _: None


def fit(
    model: nn.Module,
    batches: Callable[[int], Any],
    goal: Goal,
    *,
    steps: int,
    rate: float = 1e-3,
    course: Callable[[int, int], float] = lambda step, steps: 1.0,
    plugs: Plugs | None = None,
    parts: int = 1,
    clip: float = 1.0,
    decay: float = 0.1,
    half: bool = False,
    seed: int = 0,
    keep: Keep | None = None,
    look: tuple[int, Callable[[], float]] | None = None,
    tell: Callable[[str, int, int], None] = lambda *_: None,
) -> History:
    """Train in place with AdamW: `steps` steps of `parts` passes each, whose gradients add up to their mean.

    `batches(n)` is what pass n reads, the same whenever it is asked. `course(step, steps)` is the share of `rate` that
    a step takes. Gradients are clipped to the norm `clip`; `decay` holds for matrices and kernels only. `half` computes
    in bfloat16, weights stay as they are. `keep` is where a broken run is taken up; `look` measures what is held out,
    every so many steps and behind the last. DivergedError when the loss is no number.
    """
    plugs, device = plugs or Plugs(), next(model.parameters()).device
    adam = torch.optim.AdamW(_groups(model, decay), lr=rate, betas=(0.9, 0.95))
    history = (keep and keep.take_up(model, adam)) or History(goal.each)
    begun = time.perf_counter() - history.seconds
    first = len(history.steps)
    stage = f"training from step {first}" if first else "training"
    with _learning(model, device):
        for step in range(first, steps):
            losses, read = [], 0
            for group in adam.param_groups:
                group["lr"] = rate * course(step, steps)
            for part in range(parts):
                now = Moment(step, steps, part, parts, seed)
                batch = batches(step * parts + part)
                read += goal.labels(batch).numel()
                batch = plugs.select(now, batch)
                torch.manual_seed(now.number(f"pass {part}"))  # of dropout
                with plugs.dress(now):
                    with torch.autocast(device.type, torch.bfloat16, enabled=half):
                        logits = goal.logits(model, batch)
                    loss = functional.cross_entropy(logits.float(), goal.labels(batch))
                    total = loss + plugs.extra(now, batch, logits)
                    _check(total, step)
                    (total / parts).backward()
                losses.append(float(loss.detach()))
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            adam.step()
            adam.zero_grad()
            plugs.each_step(Moment(step, steps, 0, parts, seed))
            history.took(step + 1, math.fsum(losses) / parts, read)
            if look and ((step + 1) % look[0] == 0 or step + 1 == steps):
                history.held(step + 1, _held(model, look[1]))
            history.seconds = time.perf_counter() - begun
            if keep:
                keep.save(model, adam, history)
            tell(stage, step + 1 - first, steps - first)
    return history


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases and normalisations, one number a channel, do not."""
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices, vectors = [p for p in own if p.dim() > 1], [p for p in own if p.dim() < 2]
    both = ({"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0})
    return [group for group in both if group["params"]]


@contextmanager
def _learning(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, the network is in training mode; afterwards modes and chance are as they were, and no gradient is
    left."""
    modes = {module: module.training for module in model.modules()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.train()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            model.zero_grad()


def _held(model: nn.Module, measure: Callable[[], float]) -> float:
    model.eval()
    try:
        with torch.no_grad():
            return measure()
    finally:
        model.train()


def _check(loss: Tensor, step: int) -> None:
    if not math.isfinite(float(loss.detach())):
        raise DivergedError(
            f"the loss is {float(loss.detach())} at step {step + 1}",
            "train with a lower --lr or more --warm steps; --precision float32 where it was bfloat16",
        )
