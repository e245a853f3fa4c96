"""Plain scores as choosers, each the top by one number; they are what a method has to be better than.

`loss` and `entropy` take what the network finds hardest, `margin` where its first choice is hardly before the second,
`easy` what it knows best; `random` looks at nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secateur.parts.eyes import Eye
from secateur.parts.select import Chosen, Room
from secateur.parts.select.policies import top
from secateur.types import DataError

NAMES = ("random", "loss", "entropy", "margin", "easy")


@dataclass(frozen=True)
class Top:
    """The highest (`sign` 1) or the lowest (-1) by a number that the network gives of every example."""

    known: str
    sign: int = 1

    def __call__(self, eye: Eye, room: Room, random: torch.Generator) -> Chosen:
        seen = eye.see()
        if self.known not in seen.known:
            raise DataError("the examples have no labels, so there is no loss", "choose by entropy or margin")
        score = self.sign * seen.known[self.known]
        return Chosen(top(score, room), score, f"{'little ' * (self.sign < 0)}{self.known}", shown=False)


def random(eye: Eye, room: Room, random: torch.Generator) -> Chosen:
    """All alike likely."""
    draw = torch.rand(len(eye), generator=random, dtype=torch.float64)
    return Chosen(top(draw, room), draw, "a draw", shown=False)


loss, entropy, margin, easy = Top("loss"), Top("entropy"), Top("margin", -1), Top("loss", -1)
