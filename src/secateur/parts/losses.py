"""Terms that a training adds to its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.model.fit import Moment
from secateur.model.goals import Goal


def towards(teacher: nn.Module, goal: Goal, weight: float = 1.0) -> Callable[[Moment, Any, Tensor], Tensor]:
    """The plug `extra` of a teacher: `weight` times the KL of what it says to what the network says, in nats per place.

    The teacher learns nothing and must be in eval mode.
    """

    def extra(_: Moment, batch: Any, logits: Tensor) -> Tensor:
        with torch.no_grad():
            said = goal.logits(teacher, batch).float().log_softmax(-1)
        ours = logits.float().log_softmax(-1)
        return weight * functional.kl_div(ours, said, reduction="batchmean", log_target=True)

    return extra
