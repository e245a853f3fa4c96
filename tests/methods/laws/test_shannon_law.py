"""Loss as the inverse of a channel's capacity: its invariance, its regimes, and where it is the lowest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from secateur.maths.fitting import fit
from secateur.methods.laws.shannon_law import SHANNON, basin, capacity

P = {"a": 0.4, "alpha": 0.2, "b": 4.0, "beta": 0.4, "c": 0.5, "gamma": 0.25, "d": 0.01, "delta": 0.9}
TOKENS = np.geomspace(1e8, 1e14, 61)


def rows(params: float) -> dict[str, np.ndarray]:
    return {"params": np.full(len(TOKENS), params), "tokens": TOKENS}


def test_by_hand():
    one = {"params": np.array([1e9]), "tokens": np.array([1e9])}
    p = dict.fromkeys(SHANNON.starts, 1.0) | {"a": 0.5, "b": 9.0}
    assert capacity(one, p)[0] == pytest.approx(0.5 * math.log2(1 + 9 / 3)), "N = D = 1 billion: 0.5 log2(4)"
    assert SHANNON.at(one, p)[0] == pytest.approx(1.0)


def test_a_factor_on_signal_and_noise_alike_changes_nothing():
    scaled = P | {name: 7.0 * P[name] for name in "bcd"} | {"e": 7.0}
    assert capacity(rows(1e9), scaled) == pytest.approx(capacity(rows(1e9), P))


def test_without_noise_that_grows_the_loss_only_falls():
    p = P | {"c": 0.0, "d": 0.0}
    assert (np.diff(SHANNON.at(rows(1e9), p)) < 0).all() and basin(1e9, p) is None


def test_the_basin_of_noise_from_data_alone():
    p = P | {"c": 0.0}
    by_hand = 1e9 * (P["beta"] / (P["d"] * (P["delta"] - P["beta"]))) ** (1 / P["delta"])  # e = 1
    assert basin(1e9, p) == pytest.approx(by_hand, rel=1e-4)
    losses = SHANNON.at(rows(1e9), p)
    assert losses[0] > losses.min() < losses[-1], "a valley"


def test_in_much_noise_size_counts_by_alpha_less_gamma():
    p = P | {"b": 1e-6, "c": 1e9, "d": 0.0}
    small, large = (capacity({"params": np.array([n]), "tokens": np.array([1e11])}, p)[0] for n in (1e9, 1e10))
    assert large / small == pytest.approx(10 ** (P["alpha"] - P["gamma"]), rel=1e-5) and large < small


def test_a_planted_curve_is_met_even_if_by_other_constants():
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 5), np.geomspace(1e9, 1e12, 6)))
    table = {"params": n, "tokens": d}
    table["loss"] = SHANNON.at(table, P)
    found = fit(SHANNON, table, draws=0)
    assert np.abs(found.at(table) - table["loss"]).max() < 1e-6
