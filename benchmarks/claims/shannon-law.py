"""Does the law of a noisy channel follow losses that rise again, where Chinchilla cannot? And on real tables?

    PYTHONPATH=src python -m benchmarks.claims.shannon-law

The error is the mean absolute one of losses (nats per token) on models larger, or trained longer, than any that the
laws were fitted to. First on made losses: Chinchilla and the published term for rounding to 2 bits, with 0.3% noise,
one draw a seed; up to 6.9B parameters and 180B tokens are known, up to 12B and 307B predicted. Then on our own networks
rounded to 2 bits (`benchmarks/law_runs.py`), the last moment of each predicted. Then on tables of others, unrounded,
the largest models predicted: Chinchilla's own runs as read off its figure, and models that read their data up to
thousands of times (both from `../shared/data/scaling`; without that folder on our own networks as they are). Where the
table is given a seed leaves out a fifth of the rows that are fitted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks import harness, law_runs
from secateur.law.table import read
from secateur.maths.fitting import Score, fit
from secateur.maths.formula import Array, Formula, Rows
from secateur.methods.laws.qid_law import GPTQ
from secateur.methods.laws.shannon_law import SHANNON
from secateur.parts.laws import CHINCHILLA, CHINCHILLA_QID

#: a fit of Chinchilla's own runs, to make losses with
TRUE = {"A": 482.0, "a": 0.348, "B": 2085.0, "b": 0.366, "E": 1.817}
SIZES = (8.5e7, 3.0e8, 8.1e8, 1.2e9, 2.5e9, 6.4e9, 1.13e10)
TABLES = harness.ROOT.parent / "shared" / "data" / "scaling"
ABOUT: dict[str, Any] = {}


@cache
def made(seed: int) -> tuple[Rows, Array]:
    """Losses that rise again, and which are to be predicted."""
    n, d = (x.ravel() for x in np.meshgrid(SIZES, np.geomspace(2e9, 3.07e11, 10), indexing="ij"))
    k = GPTQ["k"] / 2 ** GPTQ["gamma"]
    rows = {"params": n, "tokens": d}
    loss = CHINCHILLA_QID.at(rows, {**TRUE, "k": k, "beta": GPTQ["beta"], "alpha": GPTQ["alpha"]})
    noise = np.random.default_rng(seed).normal(0, 0.003, len(n))
    return rows | {"loss": loss * np.exp(noise)}, (n > 6.9e9) | (d > 1.8e11)


@cache
def ours(bits: int) -> tuple[Rows, Array]:
    found = [row for seed in range(law_runs.SEEDS) for row in law_runs.of(seed) if row["bits"] == bits]
    rows = {name: np.array([float(row[name]) for row in found]) for name in ("params", "tokens", "loss")}
    return rows, rows["tokens"] == rows["tokens"].max()


@cache
def published(name: str) -> tuple[Rows, Array]:
    """A table of others, and its largest models."""
    file = TABLES / f"{name}.csv"
    if not file.is_file():
        print("no ../shared beside the repository: on our own networks instead", file=sys.stderr)
        return ours(16)
    table = read(file)
    back, told = table.back("params")
    ABOUT[f"{name}: predicted"] = f"{told}, {int(back.sum())} of {len(table)} rows"
    return {column: table.columns[column] for column in ("params", "tokens", "loss")}, back


def error(formula: Formula, rows: Rows, back: Array, what: str, out: Array | None = None) -> float:
    """The mean absolute error on the rows that are held back; those in `out` are neither fitted nor predicted."""
    chosen = ~back if out is None else ~back & ~out
    known = fit(formula, {name: column[chosen] for name, column in rows.items()}, draws=0)
    ahead = {name: column[back] for name, column in rows.items()}
    score = Score.of(known.at(ahead), ahead["loss"])
    ABOUT.setdefault(f"{what}: R2 of {formula.name}", []).append(round(score.r2, 4))
    return score.error


def on_made(seed: int, other: Formula) -> tuple[float, float]:
    rows, back = made(seed)
    return error(SHANNON, rows, back, "made"), error(other, rows, back, "made")


def on(table: Callable[[], tuple[Rows, Array]], what: str, seed: int, other: Formula) -> tuple[float, float]:
    rows, back = table()
    out = np.random.default_rng(seed).random(len(back)) < 0.2
    return error(SHANNON, rows, back, what, out), error(other, rows, back, what, out)


if __name__ == "__main__":
    for other in (CHINCHILLA, CHINCHILLA_QID):
        than, ask = f"than {other.name}", {"seeds": 5, "about": ABOUT}
        text = f"on made losses that rise again it extrapolates better {than}"
        harness.claim("shannon-law", text, lambda seed, other=other: on_made(seed, other), **ask)
        for what, table, text in (
            ("ours", lambda: ours(2), "on our networks at 2 bits it predicts the end of training better"),
            ("chinchilla", lambda: published("chinchilla"), "of Chinchilla's runs it predicts the largest better"),
            (
                "repeated",
                lambda: published("data_constrained"),
                "of runs on repeated data it predicts the largest better",
            ),
        ):
            put = partial(on, table, what, other=other)
            harness.claim("shannon-law", f"{text} {than}", put, **ask)
