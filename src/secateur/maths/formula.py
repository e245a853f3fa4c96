"""A law as a formula, and what a table must have for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.types import DataError

Array = NDArray[np.float64]
Rows = Mapping[str, Array]
Values = Mapping[str, float]


@dataclass(frozen=True)
class Formula:
    """A law as a formula: what it reads, what it gives, and where its parameters are looked for.

    `value(rows, values)` gives `target` for the columns in `rows`; it is written in functions that take complex
    numbers, since its derivatives come from a complex step. `starts` holds the range in which each parameter is looked
    for at first: one that begins above zero is positive for good. `delta` is where Huber's loss goes over from squares
    to lines, in nats of the log. `zero` names columns that may hold zeros, `below` what a column must stay under.
    """

    name: str
    says: str
    columns: tuple[str, ...]
    target: str
    starts: Mapping[str, tuple[float, float]]
    value: Callable[[Any, Any], Any]
    delta: float = 1e-3
    zero: tuple[str, ...] = ()
    below: Mapping[str, float] = field(default_factory=dict)

    def at(self, rows: Mapping[str, Any], values: Values) -> Array:
        """What the law says of these rows; not a number where it says nothing."""
        given = {name: np.asarray(rows[name], dtype=float) for name in self.columns}
        with np.errstate(all="ignore"):
            return np.asarray(
                self.value(given, {name: np.float64(value) for name, value in values.items()}), dtype=float
            )


def check(formula: Formula, rows: Rows, held: Values) -> None:
    """DataError with what is missing, too few, no number, or where the law says nothing."""
    needed = (*formula.columns, formula.target)
    if missing := [name for name in needed if name not in rows]:
        raise DataError(
            f"the table has no column {listed(missing)}",
            f"{formula.name} reads {', '.join(formula.columns)} and predicts {formula.target}; the table has "
            f"{', '.join(rows) or 'no column of numbers'}",
        )
    if strange := [name for name in held if name not in formula.starts]:
        raise DataError(
            f"{formula.name} has no parameter {listed(strange)}", f"it has {', '.join(formula.starts)}: {formula.says}"
        )
    for name in needed:
        _check_column(formula, name, rows[name])
    n, free = len(rows[formula.target]), len(formula.starts) - len(held)
    if n <= free:
        raise DataError(
            f"{n} rows are too few for {formula.name}, which has {free} parameters to be found",
            f"give {free + 1} at least, better {4 * free}; or hold parameters that are known: --hold NAME=VALUE",
        )


def _check_column(formula: Formula, name: str, column: Array) -> None:
    most = formula.below.get(name, np.inf)
    low = (column < 0) | ((column == 0) & (name not in formula.zero))
    for wrong, why, hint in (
        (~np.isfinite(column), "is no number", "leave that row out, or fill it in"),
        (low, "is not above zero", f'laws speak of positive numbers; leave such rows out: --where "{name} > 0"'),
        (column >= most, f"is not below {most:g}", f'leave such rows out: --where "{name} < {most:g}"'),
    ):
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            more = f" ({int(wrong.sum())} rows are like that)" if wrong.sum() > 1 else ""
            raise DataError(f"`{name}` in row {at + 1} of the table {why}: {column[at]:g}{more}", hint)


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(f"`{name}`" for name in names)
