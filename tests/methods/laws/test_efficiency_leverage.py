"""What a mixture of experts saves: the paper's numbers, the best granularity, constants of either sign found again."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.maths.fitting import fit
from secateur.methods.laws.efficiency_leverage import FOUND, LEVERAGE, best_granularity, leverage


def test_the_paper_s_numbers():
    told = [round(leverage(0.031, granularity, 1e22), 2) for granularity in (1, 2, 4, 8, 12, 16, 32)]
    assert told == [3.88, 5.27, 6.46, 7.15, 7.24, 7.16, 6.47]
    assert leverage(0.031, 12, 1e20) == pytest.approx(4.55, abs=0.01)
    assert leverage(1.0, 8, 1e22) == pytest.approx(0.99, abs=0.01), "not exactly one"


def test_fewer_active_experts_and_longer_training_save_more():
    shares = LEVERAGE.at({"activation": np.geomspace(0.01, 1, 9), "granularity": 12.0, "flops": 1e22}, FOUND)
    lengths = LEVERAGE.at({"activation": 0.03, "granularity": 12.0, "flops": np.geomspace(1e18, 1e24, 9)}, FOUND)
    assert (np.diff(shares) < 0).all() and (np.diff(lengths) > 0).all()


@pytest.mark.parametrize(("activation", "flops"), [(0.02, 1e20), (0.3, 1e23)])
def test_one_granularity_is_the_best_whatever_the_rest(activation, flops):
    grid = np.geomspace(1, 100, 2001)
    along = LEVERAGE.at({"activation": activation, "granularity": grid, "flops": flops}, FOUND)
    assert grid[along.argmax()] == pytest.approx(best_granularity(), rel=0.01) and best_granularity() == pytest.approx(
        11.3, abs=0.05
    )


def test_the_constants_come_back_whatever_their_sign():
    axes = np.meshgrid([0.02, 0.05, 0.1, 0.3], [1.0, 2.0, 6.0, 12.0], [1e18, 1e20, 3e21])
    rows = dict(zip(LEVERAGE.columns, (x.ravel() for x in axes), strict=True))
    rows["leverage"] = LEVERAGE.at(rows, FOUND)
    assert fit(LEVERAGE, rows, draws=0).values == pytest.approx(FOUND, rel=1e-5)


def test_the_front_door():
    import secateur

    (found,) = secateur.law("efficiency-leverage", at="activation=0.031, granularity=12, flops=1e22")["predictions"]
    assert found["more"]["as dense flops"] == pytest.approx(7.24e22, rel=1e-3) and "7.24 times as many" in found["says"]
