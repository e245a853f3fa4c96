"""One network against another on the same tokens: loss, divergence, agreement, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@torch.no_grad()
def sums(logits: Tensor, labels: Tensor, reference: Tensor | None = None) -> dict[str, Tensor]:
    """Of each window, over its tokens, in float64: `losses` and `rights`; with a reference also `reference`, `kls`,
    `agreements` and `reference_rights`.

    Logits are [windows, tokens, vocabulary], made before the `labels` [windows, tokens] were seen. `kls` is
    KL(reference || ours): what is lost by believing us where the reference is right.
    """
    ours, label = logits.float().log_softmax(-1), labels[..., None].to(logits.device)
    first = ours.argmax(-1, keepdim=True)
    found = {"losses": -ours.gather(-1, label)[..., 0], "rights": (first == label)[..., 0]}
    if reference is not None:
        theirs = reference.float().log_softmax(-1)
        found["reference"] = -theirs.gather(-1, label)[..., 0]
        found["kls"] = (theirs.exp() * (theirs - ours)).sum(-1)
        theirs_first = theirs.argmax(-1, keepdim=True)
        found["agreements"] = (first == theirs_first)[..., 0]
        found["reference_rights"] = (theirs_first == label)[..., 0]
    return {name: each.double().sum(1).cpu() for name, each in found.items()}


@dataclass
class Comparison:
    """Means over windows; all in nats per token.

    A window's first token is predicted by nothing and is not counted, nor is what its last one predicts.
    """

    losses: list[float] = field(default_factory=list)  # mean over the tokens of each window
    reference: list[float] = field(default_factory=list)
    kls: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    tokens: int = 0
    rights: list[float] = field(default_factory=list)  # share of each window's tokens that are our first choice
    reference_rights: list[float] = field(default_factory=list)

    def update(self, logits: Tensor, reference: Tensor, tokens: Tensor) -> None:
        """Add windows: logits [windows, length, vocabulary] of both, and the windows' tokens [windows, length]."""
        self.add(sums(logits[:, :-1], tokens[:, 1:], reference[:, :-1]), tokens.shape[1] - 1)

    def add(self, found: Mapping[str, Tensor], tokens: int) -> None:
        """Add windows by their `sums`, each over so many tokens."""
        for name, total in found.items():
            getattr(self, name).extend((total / tokens).tolist())
        self.tokens += tokens * len(found["losses"])

    @property
    def loss(self) -> float:
        return _mean(self.losses)

    @property
    def loss_error(self) -> float:
        """Standard error of the loss as an estimate for all such text, from the spread over windows."""
        return _error(self.losses)

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
    def accuracy(self) -> float:
        """Share of tokens (of examples, for a classifier) whose label is our first choice."""
        return _mean(self.rights)

    @property
    def accuracy_error(self) -> float:
        return _error(self.rights)

    @property
    def reference_accuracy(self) -> float:
        return _mean(self.reference_rights)

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
