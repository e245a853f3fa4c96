"""Questions in words as numbers: points, what of them lies beyond what a law was fitted on, where it is searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import product
from typing import Any

from secateur.parts.laws import Law, amount, counted
from secateur.types import SecateurError

#: where each column is searched for an answer
SEARCHED = {"params": (1e3, 1e15), "tokens": (1e3, 1e19), "bits": (0.25, 64.0), "fraction": (1e-4, 0.999)}
SEARCHED |= {"flops": (1e6, 1e32), "activation": (1e-5, 1.0), "granularity": (0.1, 1e4)}
#: how much further than it was fitted a law is asked before that is said
ROOM = 1.1
#: values of a column of a table that are asked for one by one, at most
FEW = 6

Point = dict[str, float]
At = str | Mapping[str, float]


def points(at: At | Iterable[At], law: Law, find: str | None, rows: Mapping[str, Any] | None = None) -> list[Point]:
    """The points that are asked for; where one leaves a column out the values that the table has there, or else those
    that the law usually has."""
    usual = {name: _few((rows or {}).get(name, ()), values) for name, values in law.usual.items()}
    asked: list[At] = [at] if isinstance(at, str | Mapping) else list(at)  # type: ignore[list-item]
    return [whole for one in asked for whole in _whole(_read(one, law), law, find, usual)]


def named(words: At, option: str) -> Point:
    """`name=value, name=value` as numbers."""
    if isinstance(words, Mapping):
        return {name: float(value) for name, value in words.items()}
    found = {}
    for part in filter(str.strip, words.split(",")):
        name, _, value = (word.strip() for word in part.partition("="))
        if not (name and value):
            raise SecateurError(
                f"cannot read `{part.strip()}` in {option} {words!r}", "write it like tokens=2T, bits=3"
            )
        found[name] = amount(value)
    return found


def _read(words: At, law: Law) -> Point:
    """A point whose numbers the law can read."""
    found, formula = named(words, "--at"), law.formula
    for name, value in found.items():
        if name not in formula.columns:
            near = get_close_matches(name, formula.columns, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"it reads {', '.join(formula.columns)}"
            raise SecateurError(f"this law does not read `{name}`", hint)
        most = formula.below.get(name, float("inf"))
        if value < 0 or value >= most or (value == 0 and name not in formula.zero):
            ends = "above zero" + (f" and below {most:g}" if name in formula.below else "")
            raise SecateurError(f"{name}={value:g} is nothing that this law can be asked", f"{name} is {ends}")
    return found


def _few(column: Iterable[float], usual: tuple[float, ...]) -> tuple[float, ...]:
    """The values of a column where they are few, else the usual ones."""
    values = sorted({float(value) for value in column})
    return tuple(values) if 0 < len(values) <= FEW else usual


def _whole(given: Point, law: Law, find: str | None, usual: Mapping[str, tuple[float, ...]]) -> Iterator[Point]:
    """The point with what it leaves out: each of the usual values, or what the law chooses later on."""
    columns = law.formula.columns
    open_ = [name for name in columns if name not in given and name != find]
    if lacking := [name for name in open_ if name not in law.usual and name not in law.chosen]:
        hint = f"add {lacking[0]}=... to --at" + ("" if find else f", or ask for it: --find {lacking[0]} --target ...")
        raise SecateurError(f"nothing is said of {', '.join(lacking)}", hint)
    left = [name for name in open_ if name in usual]
    for values in product(*(usual[name] for name in left)):
        whole = given | dict(zip(left, values, strict=True))
        yield {name: whole[name] for name in columns if name in whole and name != find}


def outside(at: Mapping[str, float], inside: Mapping[str, tuple[float | None, float | None]]) -> list[str]:
    """What of a point lies beyond what the law was fitted on, each in words."""
    found = []
    for name, value in at.items():
        low, high = inside.get(name, (None, None))
        if high is not None and value > high * ROOM:
            by = value / high
            times = f"{by:.2g}" if by < 10 else f"{by:,.0f}"
            found.append(f"{name}={counted(value)} is {times} times the most it was fitted on ({counted(high)})")
        elif low is not None and value * ROOM < low:
            found.append(f"{name}={counted(value)} is less than it was fitted on ({counted(low)} at least)")
    return found
