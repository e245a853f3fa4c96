"""How a number goes from the first step to the last: up in a straight line while it warms, then along a shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secateur.types import SecateurError

#: what is left at a share of the way, from 1 to 0
SHAPES = {
    "constant": lambda x: 1.0,
    "linear": lambda x: 1.0 - x,
    "cosine": lambda x: 0.5 + 0.5 * math.cos(math.pi * x),
}


@dataclass(frozen=True)
class Schedule:
    """The share of a rate that a step takes: `warm` steps up to 1, then the `shape` down to `last`.

    >>> [round(Schedule("linear", warm=2)(step, 6), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """

    shape: str = "cosine"
    warm: int = 0
    last: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise SecateurError(f"there is no schedule `{self.shape}`", f"there are {', '.join(sorted(SHAPES))}")

    def __call__(self, step: int, steps: int) -> float:
        if step < self.warm:
            return (step + 1) / self.warm
        way = (step - self.warm) / max(steps - self.warm, 1)
        return self.last + (1.0 - self.last) * SHAPES[self.shape](way)
