"""A matrix in numbers of 16 bits, each the nearest: a form, since none makes up for another's error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .grids import Coded
from .rounding import damage
from .settle import Settled

LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Halved:
    """Beyond 65504 everything is 65504, so that no infinity comes into a file."""

    def settle(self, w: Tensor, a: Tensor, g: Tensor | None, sides: int = 2) -> Settled:
        """The nearest numbers, whatever `sides`."""
        values = w.clamp(-LARGEST, LARGEST).half().float()
        return Settled(values, self, float(damage(w - values, a, g)))

    def losses(self, w: Tensor, a: Tensor, g: Tensor | None, forms: Sequence[Halved]) -> list[float]:
        return [self.settle(w, a, g).damage for _ in forms]

    def code(self, values: Tensor) -> Coded:
        return Coded(values, {"values": values.half()})
