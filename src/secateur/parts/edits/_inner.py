"""What is done to the weights that stay, when an edit takes something away first: one edit for all layers of a part, or
one for each with `;` between, in the order of the network: `"int(bits=3); int(bits=3); int(bits=4)"` for gate, up and
down."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from secateur.parts.edits import SHAPES, read
from secateur.parts.edits.keep import Keep
from secateur.types import PlanError

if TYPE_CHECKING:
    from secateur.types import Edit


@cache
def several(words: str) -> tuple[Edit, ...]:
    """The edits that stand between the `;`; nothing is to keep all."""
    found = tuple(read(one) for one in words.split(";")) if words else (Keep(),)
    for edit in found:
        if type(edit).__module__.rpartition(".")[2] in (*SHAPES, "each"):
            hint = "name a grid, like then='int(bits=8, group=0)'"
            raise PlanError(f"`{edit}` cannot come after another cut of the shape", hint)
    return found


def nth(words: str, at: int) -> Edit:
    """The edit of one layer of a part; -1 is the last, which mixes what the others make."""
    found = several(words)
    if len(found) == 1:
        return found[0]
    if at >= len(found) - 1:
        raise PlanError(f"`{words}` says too little: one edit for all layers, or one for each", "add what is missing")
    return found[at]
