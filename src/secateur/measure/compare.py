"""One network against another on the same tokens: loss, divergence, agreement, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Comparison:
    """Sums over windows; all in nats per token. The first token of a window has no prediction and is not counted."""

    losses: list[float] = field(default_factory=list)  # mean over the tokens of each window
    reference: list[float] = field(default_factory=list)
    kls: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    tokens: int = 0

    @torch.no_grad()
    def update(self, logits: Tensor, reference: Tensor, tokens: Tensor) -> None:
        """Add windows: logits [windows, length, vocabulary] of both, and the windows' tokens [windows, length]."""
        ours, theirs = (x.float().log_softmax(-1) for x in (logits, reference))
        label = tokens[:, 1:, None].to(ours.device)
        self.losses += (-ours[:, :-1].gather(-1, label)).mean((1, 2)).tolist()
        self.reference += (-theirs[:, :-1].gather(-1, label)).mean((1, 2)).tolist()
        self.kls += (theirs.exp() * (theirs - ours)).sum(-1).mean(1).tolist()
        self.agreements += (ours.argmax(-1) == theirs.argmax(-1)).float().mean(1).tolist()
        self.tokens += label.numel()

    @property
    def loss(self) -> float:
        return _mean(self.losses)

    @property
    def reference_loss(self) -> float:
        return _mean(self.reference)

    @property
    def rise(self) -> float:
        return self.loss - self.reference_loss

    @property
    def rise_error(self) -> float:
        """Standard error of the rise, from the spread over windows."""
        return _error([a - b for a, b in zip(self.losses, self.reference, strict=True)])

    @property
    def kl(self) -> float:
        return _mean(self.kls)

    @property
    def kl_error(self) -> float:
        return _error(self.kls)

    @property
    def agreement(self) -> float:
        """Share of tokens where both find the same token the most likely."""
        return _mean(self.agreements)


def _mean(x: list[float]) -> float:
    return math.fsum(x) / max(len(x), 1)


def _error(x: list[float]) -> float:
    if len(x) < 2:
        return math.inf
    mean = _mean(x)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in x) / (len(x) - 1) / len(x))
