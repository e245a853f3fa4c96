"""Edits: the ways to cut one unit, as plain values. An edit is a file here; its class bears the file's name.

Every edit names a grid (`grid`), says what its payload is made of (`payload`) and how a payload is read (`decode`).
The last two are all that our own packed format needs, so a new edit can be stored the day it is written.

>>> parse("int(bits=3, group=64)")
int(bits=3, group=64)
>>> parse("keep")
keep()
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from secateur.types import Edit, PlanError, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.maths.forms import Form
    from secateur.maths.grids import Grid

#: bytes of a stored number, by safetensors' name; "" is the model's own 16-bit type
BYTES = {"": 2, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1}


@dataclass(frozen=True)
class Part:
    """One tensor of a payload: whole numbers `low` to `low + levels - 1`, to be packed, or numbers kept as `dtype`."""

    shape: tuple[int, ...]
    levels: int = 0
    low: int = 0
    dtype: str = ""

    @property
    def bits(self) -> float:
        """Bits of the whole part, when whole numbers are packed as densely as bits or digits in bytes allow."""
        from secateur.maths.packing import packed_bytes

        n = math.prod(self.shape)
        return 8.0 * (packed_bytes(n, self.levels) if self.levels else n * BYTES[self.dtype])


class GridEdit(Protocol):
    """An edit that puts weights on a grid, or a matrix into a form."""

    def cost(self, unit: Unit) -> dict[str, float]: ...
    def grid(self, dtype: str = "float16") -> Grid | Form | None: ...
    def payload(self, rows: int, cols: int) -> dict[str, Part]: ...
    def decode(self, tensors: Mapping[str, Tensor]) -> Tensor: ...


def payload_cost(edit: GridEdit, unit: Unit) -> dict[str, float]:
    """The format-free price of an edit: bytes of all its parts. A format adds padding, names and shapes."""
    bits = sum(part.bits for m in unit.matrices for part in edit.payload(m.rows, m.cols).values())
    return {"bytes": bits / 8, "payload": bits / 8}


def names() -> list[str]:
    """The edits there are."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("_"))


#: the kind of the format's own grids of numbers, and those that change the shape of a language model
BITS, SHAPES = "bits", ("channels", "heads", "experts", "drop")


def kinds() -> list[str]:
    """What a menu can be asked to offer: `bits`, the format's own grids, and every edit here with a function
    `offered(inner)`, which says what it puts on a menu whose grids are `inner`."""
    here = Path(__file__).parent
    own = (name for name in names() if re.search(r"^def offered\(", (here / f"{name}.py").read_text(), re.MULTILINE))
    return [BITS, *own]


def asked(words: str) -> tuple[str, ...]:
    """The kinds of edits that somebody asks for, `"bits,channels"`; `"all"` are all there are."""
    if words.strip() == "all":
        return tuple(kinds())
    found = tuple(dict.fromkeys(filter(None, (word.strip() for word in words.split(",")))))
    for word in found or [words]:
        if word not in kinds():
            near = get_close_matches(word, kinds(), 1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(kinds())}, and `all`"
            raise PlanError(f"no edits are of the kind `{word}`", hint)
    return found


def offered(some: Sequence[str], inner: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits of these kinds; the format's grids `inner` are those of `bits`. What stays uncut is always offered."""
    from secateur.parts.edits.keep import Keep

    grids = tuple(inner) if BITS in some else tuple(edit for edit in inner if isinstance(edit, Keep))
    others = (import_module(f"{__name__}.{kind}").offered(grids) for kind in some if kind != BITS)
    return (*grids, *chain.from_iterable(others))


def find(name: str) -> type:
    """The class of the edit of this name, or a PlanError that names the nearest."""
    if name not in names():
        near = get_close_matches(name, names(), 1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names())}"
        raise PlanError(f"there is no edit `{name}`", hint)
    return getattr(import_module(f"{__name__}.{name}"), name.capitalize())


def text(edit: Edit) -> str:
    """An edit as people write it, without what is at its default: `int(bits=3, group=64)`; `ggml('q4_k')`, where
    there is but one thing to say."""
    told = []
    for field in fields(edit):  # type: ignore[arg-type]  # every edit is a dataclass
        value = getattr(edit, field.name)
        if field.default is MISSING or value != field.default:
            told.append(f"{field.name}={value!r}")
    if len(fields(edit)) == 1:  # type: ignore[arg-type]
        told = [word.partition("=")[2] for word in told]
    return f"{type(edit).__module__.rpartition('.')[2]}({', '.join(told)})"


def parse(words: str) -> Edit:
    """Read an edit back. Values only: nothing in the text is ever run."""
    hint = "write it like `int(bits=3, group=64)`, `fp8()` or `keep()`"
    try:
        tree = ast.parse(words.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise PlanError(f"cannot read the edit `{words}`", hint) from None
    if isinstance(tree, ast.Name):
        tree = ast.Call(tree, [], [])
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise PlanError(f"cannot read the edit `{words}`", hint)
    kind = find(tree.func.id)
    known = [field.name for field in fields(kind)]
    if len(tree.args) > len(known):
        raise PlanError(f"`{words}` has {len(tree.args)} values, but `{tree.func.id}` takes {len(known)}", hint)
    values: dict[str, Any] = {}
    for name, value in chain(zip(known, tree.args, strict=False), ((k.arg, k.value) for k in tree.keywords)):
        if name in values:
            raise PlanError(f"`{words}` says `{name}` twice", hint)
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            takes = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(known) or 'nothing'}"
            raise PlanError(f"`{tree.func.id}` has no `{name}` to set (in `{words}`)", takes)
        try:
            values[name] = ast.literal_eval(value)
        except ValueError:
            raise PlanError(f"`{name}` in `{words}` is not a plain value", hint) from None
    try:
        return kind(**values)
    except TypeError:
        raise PlanError(f"`{words}` lacks a value", f"`{tree.func.id}` needs {', '.join(_needed(kind))}") from None


@cache
def read(words: str) -> Any:
    """`parse`, for menus that have hundreds of edits made of a few dozen words."""
    return parse(words)


def must_share(name: str, keep: float, example: str) -> None:
    """PlanError if what an edit is to keep is no share."""
    if not 0 < keep < 1:
        raise PlanError(f"{name}(keep={keep}) is not a share between 0 and 1", f"write {name}(keep={example})")


def _needed(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if field.default is MISSING]
