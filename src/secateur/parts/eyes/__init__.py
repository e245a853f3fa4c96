"""A network that looks at examples: a vector of each, how sure it was of it, and what that looking cost.

The vector of an example is what the last layer reads, over the places of a text its mean: the first place is left out,
since nothing predicts it and in language models it lies far from all others. What the network has read of one example
never depends on others, but sums are made in batches: the same file gives the same numbers on the same machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateur.model.flops import flops
from secateur.types import ModelError


@dataclass(frozen=True)
class Seen:
    """What a network made of examples, in the order of the pool: `vectors` [examples, width], and by name a number of
    each: `loss` and `entropy` in nats (per token, of text), `margin` between the first and the second choice, and
    `tokens`. `numbers` are those of the examples in their file."""

    numbers: Tensor
    vectors: Tensor
    known: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.numbers)

    def checked(self, name: str) -> Seen:
        """The same, or a ModelError where a vector is not finite."""
        bad = (~torch.isfinite(self.vectors).all(1)).nonzero()[:, 0]
        if len(bad):
            said = f"{len(bad)} of {len(self)} examples have vectors with NaN or infinity, the first is number "
            raise ModelError(
                f"{said}{int(self.numbers[bad[0]])} of the data", f"the weights of {name} are damaged, or cut too far"
            )
        return self


class Eye(Protocol):
    """A network and the examples before it, in the order of their file."""

    #: the same network before the examples that are wanted, where some are given
    target: Eye | None

    @property
    def stops(self) -> Mapping[str, float]:
        """Where it can stop early: the module behind which, and the share of a whole pass that it takes until there."""
        ...

    def __len__(self) -> int: ...
    def see(self, at: Tensor | None = None) -> Seen:
        """A whole pass over all examples, which is made once, or over those at some places, which rise."""
        ...

    def glance(self, stop: str, at: Tensor | None = None) -> Tensor:
        """Vectors [examples, width] as they are behind a module, the network stopped there."""
        ...

    def beside(self, name: str) -> list[Any]:
        """What stands beside the examples under a name: one of each."""
        ...


@dataclass
class Charge:
    """What was looked at: whole passes, and parts of one, counted in passes; nothing here goes backward."""

    forward: float = 0.0
    backward: float = 0.0
    phases: list[dict[str, Any]] = field(default_factory=list)

    def add(self, what: str, examples: int, share: float = 1.0) -> None:
        self.forward += examples * share
        self.phases.append({"what": what, "examples": examples, "share_of_a_pass": share})

    def told(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def sure(logits: Tensor) -> dict[str, Tensor]:
    """Of every place: entropy in nats, and how far the first choice's probability lies above the second's."""
    log = logits.float().log_softmax(-1)
    p = log.exp()
    two = p.topk(2, -1).values
    return {"entropy": -(p * log.clamp_min(-1e4)).sum(-1), "margin": two[..., 0] - two[..., 1]}


class _Stop(Exception):
    """What was wanted is there."""


class Until(nn.Module):
    """A network that stops behind one of its modules and gives what that has put out."""

    def __init__(self, network: nn.Module, stop: str):
        super().__init__()
        self.network, self.stop = network, stop

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        found: list[Tensor] = []

        def after(_module: nn.Module, _args: Any, out: Any) -> None:
            found.append(out[0] if isinstance(out, tuple) else out)
            raise _Stop

        handle = self.network.get_submodule(self.stop).register_forward_hook(after)
        try:
            self.network(*args, **kwargs)
        except _Stop:
            pass
        finally:
            handle.remove()
        return found[0]


@contextmanager
def noting(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, what a layer reads is noted, pass by pass."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    try:
        yield seen
    finally:
        handle.remove()


def places(states: Tensor) -> Tensor:
    """The mean of the states [examples, places, width] over the places, but the first of several."""
    return states[:, 1 if states.shape[1] > 1 else 0 :].float().mean(1)


def last(network: nn.Module, classes: int) -> nn.Linear | None:
    """The linear layer that tells the classes apart."""
    found = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
    return found[-1] if found else None


@torch.no_grad()
def stops(network: nn.Module, example: Tensor) -> dict[str, float]:
    """The repeated parts behind which a network can stop, and the share of its multiplications until there.

    Those are the numbered ones that lie in no other (`layers.3`, `layer1.0`); a network without any has none.
    """
    named = [path for path, _ in network.named_modules() if re.fullmatch(r"(?:[^\d.][^.]*\.)*\d+", path)]
    whole = sum(flops(network, example).values())
    shares = {path: sum(flops(Until(network, path), example).values()) / max(whole, 1) for path in named}
    return {path: share for path, share in sorted(shares.items(), key=lambda one: one[1]) if share < 1}
