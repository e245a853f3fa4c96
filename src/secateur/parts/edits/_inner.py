"""What is done to the weights that stay, when an edit takes something away first: `then` on what makes the channels,
`last` on what mixes them; without `last` both get the same, without `then` nothing."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from secateur.parts.edits import parse
from secateur.parts.edits.keep import Keep
from secateur.types import PlanError

if TYPE_CHECKING:
    from secateur.types import Edit

_WHOLE = ("channels", "heads", "drop", "both")


@cache
def read(words: str) -> Edit:
    """Menus have hundreds of these edits and a dozen words."""
    edit = parse(words) if words else Keep()
    if type(edit).__module__.rpartition(".")[2] in _WHOLE:
        raise PlanError(
            f"`{words}` cannot come after another cut of the shape", "name a grid, like int(bits=4, group=64)"
        )
    return edit


def side(then: str, last: str, mixes: bool) -> Edit:
    """The edit of one side."""
    return read(last if mixes and last else then)
