"""A network that is small enough to be in memory as a whole, walked as a `Stream` is: one block, which is all of it.

Its samples are `Pictures`, its hidden states before the block the prepared inputs, and behind it the logits, as one
place a sample: [samples, 1, classes]. So one path surveys, cuts and measures language and image models alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from secateur.model.anatomy import Anatomy, anatomy
from secateur.model.coupled import Coupled, apart, coupled, merged
from secateur.model.flops import flops
from secateur.model.held import Held
from secateur.model.matrix import put
from secateur.model.parked import States, parked
from secateur.model.pictures import Pictures, Prepare
from secateur.model.trunk import Trunk, trunks
from secateur.types import Matrix, ModelError, Unit


class Whole:
    """Stands for a `Stream`; `samples` passed to its methods are `Pictures`."""

    blocks = ("",)
    #: a sample's positions share one loss
    one_loss = True

    def __init__(
        self,
        held: Held,
        network: nn.Module,
        prepare: Prepare,
        classes: int,
        device: torch.device | str,
        channels: bool = False,
    ):
        self.checkpoint, self.network, self.prepare, self.classes = held, network.to(device), prepare, classes
        self.device, self.batch = torch.device(device), 64
        found = anatomy(held, network)  # type: ignore[arg-type]  # it stands for a Checkpoint
        units = tuple(replace(unit, block=0) for unit in found.units)
        self.flops = flops(network, torch.zeros(1, *prepare.shape, device=device))
        self.groups: dict[str, Coupled] = {}
        self.uncoupled: dict[str, str] = {}
        self.trunks: tuple[Trunk, ...] = ()
        if channels:
            groups, self.uncoupled = coupled(network)
            units, self.groups = merged(units, apart(groups, self.flops), network)
            self.trunks = trunks(network, self.groups.values())[0] if groups else ()
        self.anatomy: Anatomy = replace(found, units=units, blocks=self.blocks, family="images")
        if not units:
            raise ModelError(f"{held.folder} holds no convolution or linear layer", "`secateur inspect` says why")
        for parameter in network.parameters():
            parameter.requires_grad_(False)

    # what surrounds the block: the preprocessing before it, and nothing behind it

    def embed(
        self, samples: Pictures, park: Path | None = None, cut: Mapping[Matrix, Tensor] | None = None, copies: int = 1
    ) -> States:
        """Inputs as the network takes them, parked."""
        out = parked((len(samples), *self.prepare.shape), park, copies)
        for start in range(0, len(samples), self.batch):
            out[start : start + self.batch] = self.prepare(samples[start : start + self.batch].x)
        return out

    @contextmanager
    def front(self, cut: Mapping[Matrix, Tensor] | None = None) -> Iterator[Callable[[Pictures], Tensor]]:
        """Inside: a function from samples to inputs."""
        yield lambda samples: self.prepare(samples.x.to(self.device))

    @contextmanager
    def tail(self, cut: Mapping[Matrix, Tensor] | None = None) -> Iterator[Callable[[Tensor], Tensor]]:
        """Inside: from the states behind the block to logits, which they are."""
        yield lambda states: states

    def meet(self, samples: Pictures) -> None:
        """Nothing to learn: the block is called with inputs alone."""

    # what it computes for every example

    def per_weight(self, unit: Unit, matrix: Matrix) -> float:
        """Floating-point operations an example for every weight: two for each place where it is used."""
        return self.flops[matrix.tap] / matrix.size

    def elsewhere(self, cut: Collection[str]) -> int:
        """Floating-point operations an example of the layers that are not among these."""
        return sum(count for path, count in self.flops.items() if path not in cut)

    # what samples are

    def windows(self, length: int) -> int:
        """How many samples may have their logits in memory at once."""
        return 4096

    def places(self, samples: Pictures) -> int:
        """How many predictions they are: one each."""
        return len(samples)

    def answers(self, logits: Tensor, samples: Pictures) -> tuple[Tensor, Tensor]:
        """The logits that are scored, [samples, 1, classes], and their labels."""
        return logits, samples.labels[:, None]

    def some(self, samples: Pictures) -> Pictures:
        """A few samples, to hold a runtime's logits against ours."""
        return samples[:8]

    def inputs(self, samples: Pictures) -> Tensor:
        """What a runtime is given."""
        return self.prepare(samples.x)

    def digest(self, *samples: Pictures) -> str:
        """A short hash of samples."""
        return "-".join(some.digest() for some in samples)

    # the block

    def behind(self, index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the states behind the block, from that before it."""
        return (shape[0], 1, self.classes)

    @contextmanager
    def loaded(self, *paths: str, cut: Mapping[Matrix, Tensor] | None = None) -> Iterator[None]:
        """Inside, the network holds its weights, `cut` put over; afterwards it is again as it was."""
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        try:
            for matrix, values in (cut or {}).items():
                put(self.network, matrix, values)
            yield
        finally:
            with torch.no_grad():
                for name, value in self.network.state_dict().items():
                    value.copy_(before[name])

    def call(self, index: int, states: Tensor) -> Tensor:
        """The network on one batch of inputs."""
        return self.network(states)[:, None]

    def through(self, index: int, states: States, out: States | None = None) -> States:
        """The network over all inputs, without gradient; into `out` where that is of the right shape."""
        shape = self.behind(index, tuple(states.shape))
        out = out if out is not None and tuple(out.shape) == shape else torch.empty(shape)
        with torch.no_grad():
            for start in range(0, len(states), self.batch):
                out[start : start + self.batch] = self.call(index, states[start : start + self.batch].to(self.device))
        return out
