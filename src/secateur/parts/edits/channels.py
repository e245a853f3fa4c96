"""Fewer channels: tensors that are really smaller, those that mix the channels refitted to make up for what is gone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.parts.edits import Part, must_share, text
from secateur.parts.edits._inner import nth
from secateur.parts.edits.keep import Keep

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.grids import Grid
    from secateur.types import Edit, Unit

#: shares of the channels that menus offer
SHARES = (0.9, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)
#: below how many channels they stay in multiples of what
_STEPS = ((128, 1), (4096, 32), (math.inf, 256))


@dataclass(frozen=True, repr=False)
class Channels:
    """The share `keep` of a unit's channels, one at least; what stays may be coded by another edit, `then`, or, of a
    language model's MLP, each layer by one of its own, with `;` between.

    Its unit is a group of coupled layers: the first makes the channels, the last mixes them (`parts/narrow.py`).
    """

    keep: float
    then: str = ""

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        must_share("channels", self.keep, "0.5")
        _ = self.side(-1)

    @property
    def inner(self) -> Edit:
        """What happens to the weights that stay."""
        return self.side(-1)

    def side(self, at: int) -> Edit:
        """What happens to the weights that stay of one layer."""
        return nth(self.then, at)

    def left(self, channels: int) -> int:
        """How many of so many channels stay; of many a multiple of 32, of thousands one of 256: groups and blocks of
        what mixes them must come out whole."""
        step = next(step for most, step in _STEPS if channels < most)
        return max(step, step * round(self.keep * channels / step))

    def cost(self, unit: Unit) -> dict[str, float]:
        from secateur.parts.left import narrowed

        left, inner = narrowed(unit, self)
        return inner.cost(left)

    def grid(self, dtype: str = "float16") -> Grid | None:
        return self.inner.grid(dtype)  # type: ignore[attr-defined]  # every edit here has one

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        return self.inner.payload(rows, cols)  # type: ignore[attr-defined]

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return self.inner.decode(tensors)  # type: ignore[attr-defined]


def offered(inner: Sequence[Edit]) -> tuple[Channels, ...]:
    """Shares of the channels, each with and without rounding what stays."""
    then = ["", *(text(edit) for edit in inner if not isinstance(edit, Keep))]
    return tuple(Channels(keep, one) for keep in SHARES for one in then)
