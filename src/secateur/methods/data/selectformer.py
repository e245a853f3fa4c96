"""Let cheap scorers sort out most of a pool, and look closely at the rest only.

Paper: SelectFormer in Data Markets: Privacy-Preserving and Efficient Data Selection for Transformers with Multi-Party
    Computation (arXiv 2310.02373, 2023)
Wing: data
Shape: law
Applies to: texts and pictures, before a network that can stop behind one of its repeated parts
Use: secateur select MODEL --data text.txt --keep 10% --method selectformer -o out

Wanted are the examples of which the network is least sure: those of highest entropy. A whole pass over the pool is
dear, so it is seen through proxies: the network's first blocks, and a small map that stands for all that lies behind
them, up to the entropy, fitted on some examples at which the whole network has looked. The cheapest proxy looks at
all and keeps `wide` times what there is room for; a larger one looks at those and chooses. Only the order counts.

Where we differ: the paper computes on secret shares, where nonlinearities are dear, and so puts small fitted networks
in the place of each of them and leaves heads out; here nothing is secret, and the blocks are as they are. The map is
linear (ridge, its strength by leaving one out) on the mean of the states over the places. The examples that it is
fitted on compete by their true entropy. With `exact` the whole network has the last word on the survivors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.maths.clustering import scaled
from secateur.parts.eyes import Eye
from secateur.parts.select import Chooser, Chosen, Room
from secateur.parts.select.policies import ranked, top
from secateur.types import ModelError

#: gives the score of the examples at some places, higher: rather kept
Scorer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SelectFormer:
    """Two proxies, which stop at about these shares of a pass; for them `fit` examples are looked at, or a fifth of a
    small pool."""

    first: float = 0.15
    second: float = 0.5
    fit: int = 200
    wide: float = 3.0
    exact: bool = False

    def __call__(self, eye: Eye, room: Room, random: torch.Generator) -> Chosen:
        if not eye.stops:
            raise ModelError("this network has no repeated parts behind which it could stop", "take --method entropy")
        n, count = len(eye), math.ceil(room.most / float(room.cost.double().mean()))
        known = torch.randperm(n, generator=random)[: min(self.fit, max(n // 5, 8))].sort().values
        truth = eye.see(known).known["entropy"]
        nearest = (min(eye.stops, key=lambda stop: abs(eye.stops[stop] - share)) for share in (self.first, self.second))
        stops = list(dict.fromkeys(nearest))  # a short network may have but one place to stop
        scorers = [proxy(lambda at, stop=stop: eye.glance(stop, None if len(at) == n else at), known, truth)
                   for stop in stops]  # fmt: skip
        keeps = [math.ceil(self.wide * count)] * (len(stops) - 1)
        if self.exact:
            scorers.append(lambda at: eye.see(at).known["entropy"])
            keeps.append(math.ceil((1 + self.wide) / 2 * count))
        at, score, survivors = cascade(scorers, keeps, room)
        about = {"fitted_on": len(known), "stops": stops, "survivors": survivors}
        return Chosen(at, score, "entropy, by proxy", about)


def cascade(scorers: Sequence[Scorer], keeps: Sequence[int], room: Room) -> tuple[Tensor, Tensor, list[int]]:
    """Each scorer looks at what the one before it has kept, the first at all; the last chooses.

    `keeps` says how many every scorer but the last hands on. Gives the places of the chosen, of every example the score
    of the last who looked at it, and how many each looked at.
    """
    alive, score = torch.arange(len(room.cost)), torch.full((len(room.cost),), torch.nan)
    looked = []
    for scorer, keep in zip(scorers, [*keeps, len(room.cost)], strict=True):
        looked.append(len(alive))
        score[alive] = scorer(alive).float()
        alive = alive[ranked(score[alive])[:keep]].sort().values
    return alive[top(score[alive], room.of(alive))], score, looked


def proxy(glance: Scorer, known: Tensor, truth: Tensor) -> Scorer:
    """A scorer from vectors that `glance` gives of examples, fitted to the `truth` about those at `known`."""

    def score(at: Tensor) -> Tensor:
        both = torch.cat([at, known]).unique()
        x = glance(both).double()
        place = torch.searchsorted(both, known)
        guessed = ridge(x[place], truth.double(), x)
        guessed[place] = truth.double()
        return guessed[torch.searchsorted(both, at)]

    return score


def ridge(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """What a line through (x, y) says of new vectors; its strength is the one that guesses each y best from the others.

    Columns are scaled as they are in x, so that the strength is a share of their own spread.
    """
    a, b = (scaled(some, x).double() for some in (x, new))
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    mean = y.mean()
    inner, best = u.mT @ (y - mean), (torch.inf, torch.zeros(a.shape[1], dtype=a.dtype))
    for strength in torch.logspace(-4, 2, 25, dtype=torch.float64) * float((s * s).mean().clamp_min(1e-12)):
        shrunk = s * s / (s * s + strength)
        left = y - mean - u @ (shrunk * inner)
        lever = 1 - ((u * u) @ shrunk + 1 / len(y))
        wrong = float((left / lever.clamp_min(1e-6)).square().mean())
        if wrong < best[0]:
            best = (wrong, vh.mT @ (shrunk / s.clamp_min(1e-9) * inner))
    return b @ best[1] + mean


selectformer: Chooser = SelectFormer()
