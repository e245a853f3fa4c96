"""Keep what resembles a few examples of one's own, and stop where the resemblance ends.

Paper: Kim, Bae, Yun: Coreset Sampling from Open-Set for Fine-Grained Self-Supervised Learning (arXiv 2303.11101, 2023)
Wing: data
Shape: law
Applies to: texts and pictures, with some of the kind that is wanted
Use: secateur select MODEL --data text.txt --target heldout.txt --keep 10% --method simcore -o out

The examples that are wanted become at most `clusters` centres (k-means; each is its own where there are no more). Then
round after round each centre takes from the pool what is most like it and was not taken before, which is greedy
facility location; two centres may take the same one. Behind `patience` rounds the mean likeness of a round sets a
threshold, 95% of it, and the first later round below that is thrown away and ends the search, whatever room is left.

Where we differ: vectors come from the network at hand, not from one trained on the target by self-supervision. Each
number of a vector is scaled to mean 0 and spread 1 over the pool before angles are taken: in a language model's hidden
states a few numbers would decide alone. Of a last round that does not fit, the most alike are taken, not some by
chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secateur.maths.clustering import directions, kmeans, rounds, scaled
from secateur.parts.eyes import Eye
from secateur.parts.select import Chooser, Chosen, Room
from secateur.types import DataError


@dataclass(frozen=True)
class SimCore:
    """What resembles a target. `stop` False fills the room, however little the last ones resemble it."""

    clusters: int = 100
    patience: int = 20
    threshold: float = 0.95
    stop: bool = True

    #: it looks for what is like given examples
    resembles: ClassVar[bool] = True

    def __call__(self, eye: Eye, room: Room, random: torch.Generator) -> Chosen:
        if eye.target is None:
            raise DataError("simcore looks for what resembles examples of yours, and there are none", "--target FILE")
        return self.choose(eye.target.see().vectors, eye.see().vectors, room, random)

    def choose(self, target: Tensor, pool: Tensor, room: Room, random: torch.Generator) -> Chosen:
        """The same from vectors, [examples, numbers] of the target and of the pool."""
        wanted, offered = directions(scaled(target, pool)), directions(scaled(pool))
        centres = directions(kmeans(wanted, self.clusters, random)[0])
        alike = centres @ offered.mT
        taken, values, limit = self._rounds(alike, room)
        stopped = self.stop and limit is not None and values[-1] < limit
        about = {"centres": len(centres), "rounds": len(values) - stopped, "likeness_of_rounds": values}
        about |= {"threshold": limit, "stopped": bool(stopped)}
        if stopped:
            about["said"] = (
                f"stopped after {len(values) - 1} rounds: the next would have been {values[-1]:.3f} like the target, "
                f"and the threshold is {limit:.3f}"
            )
        return Chosen(room.first(taken), alike.max(0).values, "likeness to the target", about)

    def _rounds(self, alike: Tensor, room: Room) -> tuple[Tensor, list[float], float | None]:
        """Places in the order in which they are taken, the likeness of every round, and the threshold."""
        order: list[Tensor] = []
        values: list[float] = []
        limit, used, least = None, 0, int(room.cost.min())
        best = alike.max(0).values
        for some, value in rounds(alike):
            values.append(value)
            if self.stop and limit is not None and value < limit:
                break
            if len(values) == self.patience:
                limit = self.threshold * value
            order.append(some[best[some].argsort(descending=True, stable=True)])
            used += room.used(order[-1])
            if used > room.most - least:
                break
        return torch.cat(order), values, limit


simcore: Chooser = SimCore()
