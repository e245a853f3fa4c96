"""From scores [examples] to a choice, higher is rather kept: places, none twice, and never more than there is room for.

Equal scores keep the order of the pool; NaN comes last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.parts.select import Room


def ranked(scores: Tensor) -> Tensor:
    """Places from the highest score to the lowest."""
    return scores.double().nan_to_num(nan=-torch.inf, neginf=-torch.inf).argsort(descending=True, stable=True)


def top(scores: Tensor, room: Room) -> Tensor:
    """The highest, as many as there is room for."""
    return room.first(ranked(scores))
