"""The law fitter: planted parameters come back, intervals cover, and every table that cannot do says why."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.maths.fitting import Score, between, fit, foretold
from secateur.maths.formula import Formula
from secateur.parts.laws import CHINCHILLA, KUMAR, OPENAI, QID
from secateur.types import DataError

SIZES, LENGTHS = np.geomspace(1e8, 1e10, 5), np.geomspace(1e9, 1e12, 5)
TRUE = {"A": 482.0, "a": 0.348, "B": 2085.0, "b": 0.366, "E": 1.817}


def grid(*more: float) -> dict[str, np.ndarray]:
    """Every size with every length (and every width in bits)."""
    axes = np.meshgrid(SIZES, LENGTHS, *([np.array(more)] if more else []), indexing="ij")
    return dict(zip(("params", "tokens", "bits"), (axis.ravel() for axis in axes), strict=False))


def losses(noise: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    rows = grid()
    loss = CHINCHILLA.at(rows, TRUE)
    return rows | {"loss": loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(loss)))}


LINE = Formula(
    "line",
    "y = 2^(c x) + m",
    ("x",),
    "y",
    {"c": (0.1, 5.0), "m": (-9.0, 9.0)},
    lambda r, p: 2.0 ** (p["c"] * r["x"]) + p["m"],
)


def test_by_hand_with_a_parameter_of_either_sign():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    found = fit(LINE, {"x": x, "y": 4.0**x - 3}, draws=5)
    assert found.values == pytest.approx({"c": 2.0, "m": -3.0})
    assert found.score.r2 == pytest.approx(1) and found.score.error == pytest.approx(0, abs=1e-9)
    assert float(found.at({"x": 5.0})) == pytest.approx(1021)
    assert Score.of(np.array([1.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0])) == Score(-1.0, 2 / 3, 3)


@pytest.mark.parametrize(
    ("formula", "values", "bits"),
    [
        (CHINCHILLA, TRUE, ()),
        (OPENAI, {"Nc": 8.8e13, "aN": 0.076, "Dc": 5.4e13, "aD": 0.095}, ()),
        (QID, {"k": 0.017, "beta": 0.5251, "alpha": 0.2261, "gamma": 5.4967}, (2.0, 3.0, 4.0)),
        (KUMAR, {"C": 0.05, "gD": 0.5, "gN": 0.3, "g": 0.5}, (2.0, 3.0, 4.0)),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_planted_parameters_come_back(formula, values, bits):
    rows = grid(*bits)
    rows[formula.target] = formula.at(rows, values)
    assert fit(formula, rows, draws=0).values == pytest.approx(values, rel=1e-6)


def test_one_wild_row_does_not_decide():
    rows = losses(0.001)
    rows["loss"][7] *= 3
    assert fit(CHINCHILLA, rows, draws=0).values["E"] == pytest.approx(1.817, rel=0.02)


def test_the_same_seed_is_the_same_fit():
    one, two, other = (fit(CHINCHILLA, losses(0.01), seed=seed, draws=8) for seed in (3, 3, 4))
    assert one.values == two.values and (one.draws == two.draws).all() and (one.draws != other.draws).any()
    assert one.values == pytest.approx(other.values, rel=1e-5), "the best fit is no matter of luck"


def test_intervals_hold_what_is_true_and_what_is_measured_next():
    at, held, next_ones = {"params": 3e9, "tokens": 2e11}, 0, 0
    truth = float(CHINCHILLA.at(at, TRUE))
    for seed in range(6):
        found = fit(CHINCHILLA, losses(0.01, seed), draws=40)
        low, high = found.range(at)
        narrow = between([float(CHINCHILLA.at(at, values)) for values in found.drawn])
        assert low < narrow[0] and narrow[1] < high, "one more measurement is less sure than the curve"
        held += narrow[0] <= truth <= narrow[1]
        next_ones += low <= truth * np.exp(0.01 * np.random.default_rng(99 + seed).normal()) <= high
    assert held >= 4 and next_ones >= 4


def test_whole_runs_are_drawn_together():
    rows = losses()
    run = np.repeat(np.arange(5), 5)
    luck = np.exp(0.02 * np.random.default_rng(0).normal(size=5))[run]  # of a run, all along its training
    rows["loss"] = rows["loss"] * luck
    apart, together = (
        fit(CHINCHILLA, rows, draws=30, together=groups).range({"params": 1e9, "tokens": 1e11})
        for groups in (None, run)
    )
    assert np.diff(together)[0] != np.diff(apart)[0]


def test_what_is_held_back_is_foretold():
    rows = losses(0.001)
    score = foretold(CHINCHILLA, rows, rows["params"] == SIZES[-1])
    assert score.n == 5 and score.r2 > 0.98 and score.error < 0.01


def test_a_parameter_can_be_held():
    rows = grid(3.0) | {}
    rows["rise"] = QID.at(rows, {"k": 0.017, "beta": 0.5, "alpha": 0.2, "gamma": 5.5})
    found = fit(QID, rows, held={"gamma": 5.5}, draws=4)
    assert found.values == pytest.approx({"k": 0.017, "beta": 0.5, "alpha": 0.2, "gamma": 5.5}, rel=1e-6)
    assert found.intervals()["gamma"] == (5.5, 5.5)


def test_a_table_that_cannot_tell_says_what():
    rows = grid(3.0)
    rows["rise"] = QID.at(rows, {"k": 0.017, "beta": 0.5, "alpha": 0.2, "gamma": 5.5})
    with pytest.raises(DataError, match="cannot tell `k`, `gamma` of qid: `bits` is 3 in all rows") as said:
        fit(QID, rows)
    assert "--hold gamma=VALUE" in said.value.hint
    one = {name: column[:5] for name, column in losses().items()} | {}
    six = {name: np.concatenate([column, column * 1.01]) for name, column in one.items()} | {"params": np.full(10, 1e9)}
    with pytest.raises(DataError, match="cannot tell `A`, `a`, `E` of chinchilla: `params` is 1e\\+09 in all rows"):
        fit(CHINCHILLA, six)


@pytest.mark.parametrize(
    ("spoil", "words", "hint"),
    [
        (lambda r: r.pop("tokens"), "no column `tokens`", "the table has params, loss"),
        (lambda r: r["loss"].__setitem__(3, np.nan), "`loss` in row 4 of the table is no number", "fill it in"),
        (
            lambda r: r["loss"].__setitem__(slice(2, 4), -1),
            r"`loss` in row 3 .* is not above zero: -1 \(2 rows",
            "--where",
        ),
        (lambda r: r.update({k: v[:5] for k, v in r.items()}), "5 rows are too few for chinchilla", "give 6 at least"),
    ],
)
def test_what_is_wrong_with_a_table(spoil, words, hint):
    rows = losses()
    spoil(rows)
    with pytest.raises(DataError, match=words) as said:
        fit(CHINCHILLA, rows)
    assert hint in said.value.hint
    with pytest.raises(DataError, match="has no parameter `zeta`"):
        fit(CHINCHILLA, losses(), held={"zeta": 1.0})
