"""Laws fitted to tables: many starts, Huber's loss on the log, bootstrap intervals, rows held back to be predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.maths.following import Problem
from secateur.maths.formula import Array, Formula, Rows, Values, check

#: tables drawn with replacement for intervals
DRAWS = 200


@dataclass(frozen=True)
class Score:
    """How near predictions come: R2 = 1 - squares left over squares around the mean, and the mean absolute error."""

    r2: float
    error: float
    n: int

    @classmethod
    def of(cls, said: Array, seen: Array) -> Score:
        around = float(((seen - seen.mean()) ** 2).sum())
        left = float(((said - seen) ** 2).sum())
        return cls(1 - left / around if around > 0 else float("nan"), float(np.abs(said - seen).mean()), len(seen))


@dataclass(frozen=True)
class Fit:
    """A law with its parameters, and how sure they are.

    `draws` [draws, parameters] are the fits of tables drawn with replacement. `scatter` are the logs of measured over
    said of all rows, widened by what the parameters took out of them. `inside` has of each column the least and the
    largest that it was fitted on.
    """

    formula: Formula
    values: dict[str, float]
    score: Score
    scatter: Array
    draws: Array
    inside: dict[str, tuple[float, float]]
    seed: int = 0

    @cached_property
    def drawn(self) -> list[dict[str, float]]:
        """The parameters of every draw."""
        return [dict(zip(self.values, row, strict=True)) for row in self.draws.tolist()]

    def at(self, rows: Mapping[str, Any]) -> Array:
        return self.formula.at(rows, self.values)

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Between what most draws have each parameter."""
        return {name: between(self.draws[:, i], level) for i, name in enumerate(self.values)}

    def range(self, at: Values, level: float = 0.95) -> tuple[float, float]:
        """Between what one more measurement at this point is expected: the draws, and the scatter of the rows."""
        rng = np.random.default_rng(self.seed)
        said = np.array([float(self.formula.at(at, values)) for values in self.drawn])
        return between(said * np.exp(rng.choice(self.scatter, len(said))), level)


def between(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """The interval that holds this share of the values; those that are no numbers are left out."""
    x = np.asarray(list(values), dtype=float)
    x = x[np.isfinite(x)]
    if not len(x):
        return float("nan"), float("nan")
    low, high = np.quantile(x, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def fit(
    formula: Formula,
    rows: Rows,
    seed: int = 0,
    held: Values | None = None,
    draws: int = DRAWS,
    together: NDArray[Any] | None = None,
) -> Fit:
    """Fit a law to a table. The same seed gives the same fit.

    `held` are parameters that are not fitted. `together` names the run of each row: whole runs are drawn then, since
    the checkpoints of one share its luck.
    """
    held = dict(held or {})
    check(formula, rows, held)
    problem, rng = Problem(formula, rows, held), np.random.default_rng(seed)
    problem.check(rng)
    theta = problem.best(rng)
    values = {name: float(value) for name, value in problem.values(theta).items()}
    seen = rows[formula.target]
    said, n = formula.at(rows, values), len(seen)
    groups = np.arange(n) if together is None else np.unique(together, return_inverse=True)[1]
    members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    found = np.empty((draws, len(values)))
    for at in range(draws):
        chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        some = Problem(formula, {name: column[chosen] for name, column in rows.items()}, held)
        found[at] = list(some.values(some.followed(theta, formula.delta, 40, close=1e-5)).values())
    scatter = np.log(seen / said) * np.sqrt(n / max(n - len(problem.free), 1))
    inside = {name: (float(rows[name].min()), float(rows[name].max())) for name in formula.columns}
    return Fit(formula, values, Score.of(said, seen), scatter, found, inside, seed)


def foretold(formula: Formula, rows: Rows, back: NDArray[np.bool_], seed: int = 0, held: Values | None = None) -> Score:
    """How well a law that was fitted to the other rows predicts those that are held back."""
    rest = {name: column[~back] for name, column in rows.items()}
    known = fit(formula, rest, seed, held, draws=0)
    return Score.of(known.at({name: column[back] for name, column in rows.items()}), rows[formula.target][back])
