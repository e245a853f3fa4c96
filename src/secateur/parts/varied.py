"""Pictures as they might have been as well: mirrored, and moved by some pixels. A plug of the training loop.

What is seen of a picture changes from pass to pass and hangs on the seed, so a few thousand pictures last longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secateur.model.pictures import Pictures
from secateur.types import DataError

#: pixels that a picture moves at most, where nobody has said
PIXELS = 4
_HINT = '--augment "flip", "shift:4" or both, for pictures [examples, height, width, channels]'


def parse(asked: str) -> dict[str, int]:
    """`"flip,shift:4"` as what is done, and by how much."""
    out: dict[str, int] = {}
    for word in filter(None, (word.strip() for word in asked.split(","))):
        name, _, much = word.partition(":")
        if name not in ("flip", "shift") or (much and (name == "flip" or not much.isdecimal())):
            raise DataError(f"pictures cannot be varied by `{word}`", _HINT)
        out[name] = int(much or PIXELS) if name == "shift" else 1
    return out


def varied(how: Mapping[str, int], some: Pictures) -> Callable[[Any, Pictures], Pictures]:
    """What a pass sees of its batch; DataError if `some` of the pictures have no height and width."""
    if some.x.dim() != 4 or max(how.get("shift", 0), 1) >= min(some.x.shape[1:3]):
        raise DataError(f"examples of shape {list(some.x.shape[1:])} cannot be varied so", _HINT)

    def vary(now: Any, batch: Pictures) -> Pictures:
        random, x = now.random(f"varied {now.part}"), batch.x
        if "flip" in how:
            x = mirrored(x, torch.rand(len(x), generator=random) < 0.5)
        if far := how.get("shift", 0):
            x = moved(x, torch.randint(0, 2 * far + 1, (len(x), 2), generator=random) - far)
        return Pictures(x, batch.labels)

    return vary


def mirrored(x: Tensor, which: Tensor) -> Tensor:
    """Pictures [examples, height, width, channels], some of them [examples] left to right."""
    return torch.where(which.to(x.device)[:, None, None, None], x.flip(2), x)


def moved(x: Tensor, by: Tensor) -> Tensor:
    """Pictures moved down and to the right by so many pixels each [examples, 2]; zeros come in."""
    far, (_, high, wide, _) = int(by.abs().max()), x.shape
    padded = functional.pad(x, (0, 0, far, far, far, far))
    by = by.to(x.device)
    rows = torch.arange(high, device=x.device) + far - by[:, :1]
    cols = torch.arange(wide, device=x.device) + far - by[:, 1:]
    each = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[each, rows[:, :, None], cols[:, None, :]]
