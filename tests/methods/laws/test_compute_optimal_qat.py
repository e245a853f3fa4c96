"""The share of training with rounded weights: the paper's numbers, the law of the loss, and what a plan wastes."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.maths.fitting import fit
from secateur.methods.laws.compute_optimal_qat import FRACTION, LOSS, best_fraction, best_plan, per_byte, wasted
from secateur.parts.laws import CHINCHILLA

P = {
    "A": 400.0,
    "alpha": 0.34,
    "B0": 2000.0,
    "beta": 0.37,
    "E": 1.8,
    "theta": 0.5,
    "kappa": 1.5,
    "phi": 2.0,
    "chi": 0.6,
}
P |= {"psi": 0.05, "omega": 0.3, "lambda": 3.0, "mu": 0.5, "nu": 0.02, "xi": 0.4, "rho": 0.1}
AT = {"params": 1e9, "tokens": 1e11, "bits": 4.0}


def test_the_paper_s_shares():
    """S = tokens a byte: one parameter of 8 bits, so many tokens."""
    assert [round(best_fraction(1, s, 8), 3) for s in (10, 100, 1000)] == [0.054, 0.232, 0.377]
    assert per_byte(1e9, 1e11, 4) == 200
    shares = [best_fraction(1, 10.0**p, 8) for p in range(1, 60, 4)]
    assert (np.diff(shares) > 0).all() and shares[-1] > 0.9, "rising, towards one"
    assert np.isnan(best_fraction(1, 1, 8)), "nothing is said up to one token a byte"


def test_half_the_bits_are_twice_the_tokens_a_byte():
    assert best_fraction(1e9, 1e11, 2) == best_fraction(1e9, 2e11, 4) > best_fraction(1e9, 1e11, 4)


def test_what_rounding_adds():
    losses = LOSS.at({**AT, "bits": np.array([1.0, 2, 4, 8, 60]), "fraction": 0.3}, P)
    whole = CHINCHILLA.at(AT, {"A": 400.0, "a": 0.34, "B": 2000.0, "b": 0.37, "E": 1.8})
    assert (np.diff(losses) < 0).all() and losses[-1] == pytest.approx(float(whole), abs=1e-6)
    assert LOSS.at({**AT, "fraction": 0.0}, P) == pytest.approx(whole), "full precision has nothing to add"
    pure = P | {"lambda": 1e-12}
    assert (np.diff(LOSS.at({**AT, "fraction": np.array([0.1, 0.3, 0.9])}, pure)) < 0).all()


def test_the_best_plan_wastes_nothing_and_others_do():
    share, loss = best_plan(AT, P)
    assert 0 < share < 1 and loss == pytest.approx(float(LOSS.at({**AT, "fraction": share}, P)))
    assert wasted({**AT, "fraction": share}, P) == pytest.approx(0, abs=2e-3 * AT["tokens"])
    low, lower = (wasted({**AT, "fraction": share / by}, P) for by in (3, 10))
    assert 0 < low < lower < AT["tokens"]
    enough = AT["tokens"] - lower
    assert best_plan({**AT, "tokens": enough}, P)[1] == pytest.approx(float(LOSS.at({**AT, "fraction": share / 10}, P)))


def test_the_one_constant_comes_back():
    n, d, b = (x.ravel() for x in np.meshgrid([1e8, 1e9], [1e10, 1e11, 1e12], [1.0, 2.0, 4.0]))
    rows = {"params": n, "tokens": d, "bits": b}
    rows["fraction"] = FRACTION.at(rows, {"a": 6.7297})
    assert fit(FRACTION, rows, draws=0).values == pytest.approx({"a": 6.7297})
