"""Fewer channels: tensors that are really smaller, those that mix the channels refitted to make up for what is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from secateur.parts.edits import Part, parse, text
from secateur.parts.edits.keep import Keep
from secateur.types import PlanError

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.grids import Grid
    from secateur.types import Edit, Unit

#: shares of the channels that menus offer
SHARES = (0.9, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)


@dataclass(frozen=True, repr=False)
class Channels:
    """The share `keep` of a unit's channels, one at least; what stays may be coded by another edit, `then`.

    Its unit is a group of coupled layers: the first makes the channels, the last mixes them (`parts/narrow.py`).
    """

    keep: float
    then: str = ""

    def __repr__(self) -> str:
        return text(self)

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise PlanError(f"channels(keep={self.keep}) is not a share between 0 and 1", "write channels(keep=0.5)")
        if isinstance(self.inner, Channels):
            raise PlanError("channels can go once", "name a grid in `then`, like then='int(bits=8, group=0)'")

    @property
    def inner(self) -> Edit:
        """What happens to the weights that stay."""
        return _read(self.then) if self.then else Keep()

    def left(self, channels: int) -> int:
        """How many of so many channels stay."""
        return max(1, round(self.keep * channels))

    def cost(self, unit: Unit) -> dict[str, float]:
        from secateur.parts.narrow import narrowed

        return self.inner.cost(narrowed(unit, self)[0])

    def grid(self, dtype: str = "float16") -> Grid | None:
        return self.inner.grid(dtype)  # type: ignore[attr-defined]  # every edit here has one

    def payload(self, rows: int, cols: int) -> dict[str, Part]:
        return self.inner.payload(rows, cols)  # type: ignore[attr-defined]

    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return self.inner.decode(tensors)  # type: ignore[attr-defined]


@cache
def _read(words: str) -> Edit:
    """Menus have hundreds of these edits and a dozen words."""
    return parse(words)


def offered(inner: Sequence[Edit]) -> tuple[Channels, ...]:
    """Shares of the channels, each with and without rounding what stays."""
    then = ["", *(text(edit) for edit in inner if not isinstance(edit, Keep))]
    return tuple(Channels(keep, one) for keep in SHARES for one in then)
