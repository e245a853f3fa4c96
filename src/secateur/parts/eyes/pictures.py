"""An image model that looks at the examples of an .npz."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from secateur.model.pool.arrays import Arrays
from secateur.parts.eyes import Charge, Seen, Until, last, noting, stops, sure
from secateur.parts.thumbs import small
from secateur.parts.vision import Vision
from secateur.types import DataError, ModelError

_BATCH = 256


class PictureEye:
    """A network before the examples of a file, or before those of them that are `numbers`."""

    def __init__(
        self,
        model: Vision,
        pool: Arrays,
        device: torch.device,
        charge: Charge,
        numbers: Tensor | None = None,
        target: PictureEye | None = None,
        tell: Callable[[str, int, int], None] = lambda *_: None,
    ):
        self.model, self.pool, self.device, self.charge, self.tell = model, pool, device, charge, tell
        self.numbers = torch.arange(len(pool)) if numbers is None else numbers
        self.classes = model.classes()
        self.network, self.target = model.network.to(device), target
        self.seen: Seen | None = None
        self.glanced: Tensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def stops(self) -> dict[str, float]:
        """Where it can stop early."""
        return stops(self.network, self.model.example(1).to(self.device))

    @torch.no_grad()
    def see(self, at: Tensor | None = None) -> Seen:
        """A whole pass; one over all examples is kept."""
        if at is None and self.seen is not None:
            return self.seen
        numbers = self.numbers if at is None else self.numbers[at]
        layer = last(self.network, self.classes)
        vectors, known = [], []
        for x, labels in self._batches(numbers, "looking"):
            if layer is None:
                logits = self.network(x)
                vectors.append(logits.flatten(1).float().cpu())
            else:
                with noting(layer) as read:
                    logits = self.network(x)
                vectors.append(read[-1].flatten(1).float().cpu())
            self._check(logits)
            found = sure(logits)
            if labels is not None:
                own = labels[:, None].to(logits.device)
                found["loss"] = -logits.float().log_softmax(-1).gather(1, own)[:, 0]
            known.append({name: value.cpu() for name, value in found.items()})
        self.charge.add("whole passes", len(numbers))
        merged = {name: torch.cat([one[name] for one in known]) for name in known[0]}
        seen = Seen(numbers, torch.cat(vectors), merged).checked(self.model.name)
        self.seen = seen if at is None else self.seen
        return seen

    @torch.no_grad()
    def glance(self, stop: str, at: Tensor | None = None) -> Tensor:
        """The mean of every channel over the picture, behind a module; a glance at all examples is kept."""
        numbers = self.numbers if at is None else self.numbers[at]
        network, found = Until(self.network, stop), []
        for x, _ in self._batches(numbers, f"glancing as far as {stop}"):
            out = network(x).float()
            # channels come first behind convolutions, and last behind blocks of a transformer
            found.append((out.flatten(2).mean(2) if out.dim() == 4 else out.mean(1) if out.dim() == 3 else out).cpu())
        self.charge.add(f"as far as {stop}", len(numbers), self.stops[stop])
        vectors = Seen(numbers, torch.cat(found), {}).checked(self.model.name).vectors
        self.glanced = vectors if at is None else self.glanced
        return vectors

    def tokens(self) -> None:
        """Pictures have none."""

    def beside(self, name: str) -> list[Any]:
        """What an array of the file holds of each example."""
        told = self.pool.beside(name)
        return [told[number] for number in self.numbers.tolist()]

    def shown(self, at: Tensor) -> tuple[list[str], list[str]]:
        """What there is to look at of some examples, in the order of the pool: labels, and small pictures."""
        wanted, kept, said = self.numbers[at], [], []
        for stored, labels in self._stored(wanted):
            kept.append(stored)
            said += [""] * len(stored) if labels is None else [f"label {label}" for label in labels.tolist()]
        return said, small(torch.cat(kept))

    def _batches(self, numbers: Tensor, what: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        done = 0
        for stored, labels in self._stored(numbers):
            self.tell(what, done, len(numbers))
            if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
                bad = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
                raise DataError(
                    f"the label {bad} in {self.pool.name} is none of the network's {self.classes}",
                    "labels count from 0; is this the data that the network was made for?",
                )
            yield self.model.prepare(stored.to(self.device)), labels
            done += len(stored)
        self.tell(what, done, len(numbers))

    def _stored(self, numbers: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The examples of these numbers as they are stored, in the order of the file, and their labels."""
        wanted = torch.zeros(len(self.pool), dtype=torch.bool)
        wanted[numbers] = True
        for start, (stored, labels) in enumerate(self.pool.batches(_BATCH)):
            mine = wanted[start * _BATCH : start * _BATCH + len(stored)]
            if bool(mine.any()):
                yield stored[mine], None if labels is None else labels[mine]

    def _check(self, logits: Tensor) -> None:
        if not bool(torch.isfinite(logits).all()):
            for name in self.model.held.state:
                self.model.held.check_finite(name)
            raise ModelError(
                f"the weights of {self.model.name} are finite, its logits are not", "it is damaged, or cut too far"
            )
