"""A law fitted to a table beside the laws that it has to beat, on all rows and on rows that are held back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from secateur.law.answering import Answering
from secateur.law.table import Table
from secateur.maths.fitting import Fit, Score, fit, foretold
from secateur.maths.formula import Formula, Values
from secateur.parts.laws import Law
from secateur.types import DataError

Tell = Callable[[str, int, int], None]
#: columns of which a law that does not read them must see one value only
APART = ("bits",)


def tried(
    law: Law, rows: Table, hold_out: str | None, held: Values, seed: int, tell: Tell, draws: int
) -> tuple[Answering, list[dict[str, Any]], list[str]]:
    """The law, ready for questions; one row for each law that was fitted; and what must be known of it, in words."""
    back, notes = None, confounded(law, rows)
    try:
        back, told = rows.back(hold_out)
        notes.append(f"held back, and predicted from the others: {told}, {int(back.sum())} of {len(rows)} rows")
    except DataError as error:
        if hold_out is not None:
            raise
        notes.append(f"nothing is held back: {error.message}")
    tell("fitting laws", 0, 1 + len(law.beside))
    known = fit(law.formula, rows.columns, seed, held, draws, rows.runs)
    fits = [_row(law.formula, known, *_ahead(law.formula, rows, back, seed, held), held)]
    for at, other in enumerate(law.beside):
        tell("fitting laws", 1 + at, 1 + len(law.beside))
        try:
            one = fit(other, rows.columns, seed, draws=0)
            fits.append(_row(other, one, *_ahead(other, rows, back, seed, {})))
        except DataError as error:
            fits.append(_row(other, None, None, error.message))
    tell("fitting laws", 1 + len(law.beside), 1 + len(law.beside))
    return Answering(law, known.values, known), fits, notes + _beaten(fits)


def confounded(law: Law, rows: Table) -> list[str]:
    """What differs between the rows, and the law does not read."""
    found = []
    for name in APART:
        values = sorted(set(rows.columns.get(name, np.empty(0)).tolist()))
        if name not in law.formula.columns and len(values) > 1:
            told = ", ".join(f"{value:g}" for value in values)
            one = f'--where "{name} = {values[0]:g}"'
            found.append(f"the rows have {name} of {told}, which this law does not read: take one, {one}")
    return found


def _beaten(fits: list[dict[str, Any]]) -> list[str]:
    """What speaks against the first law: that it predicts badly what was held back, or others better."""
    ours, r2 = fits[0]["held_out_error"], fits[0]["held_out_r2"]
    found = []
    if r2 is not None and r2 < 0:
        found.append(
            "this law predicts what is held back worse than the mean of those rows: do not go beyond the table"
        )
    for one in fits[1:]:
        theirs = one["held_out_error"]
        if None not in (ours, theirs) and theirs < ours:
            by = f"{theirs:.3g} off on the mean and not {ours:.3g}"
            found.append(f"{one['law']} predicts what is held back better, {by}: go beyond the table with that one")
    return found


def _ahead(formula: Formula, rows: Table, back: np.ndarray | None, seed: int, held: Values) -> tuple[Score | None, str]:
    """How well the rows that are held back are predicted, or why nobody can say."""
    if back is None:
        return None, ""
    try:
        return foretold(formula, rows.columns, back, seed, held), ""
    except DataError as error:
        return None, f"without the rows held back {error.message}"


def _row(
    formula: Formula, known: Fit | None, ahead: Score | None, why: str, held: Values | None = None
) -> dict[str, Any]:
    row: dict[str, Any] = {"law": formula.name, "formula": formula.says, "why": why}
    row |= {
        "parameters": known.values if known else None,
        "free": len(known.values) - len(held or ()) if known else None,
    }
    row |= {"r2": known.score.r2 if known else None, "error": known.score.error if known else None}
    return row | {"held_out_r2": ahead.r2 if ahead else None, "held_out_error": ahead.error if ahead else None}
