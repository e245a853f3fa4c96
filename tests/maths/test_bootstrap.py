"""The bootstrap: by hand, by its laws, and in pieces as in one."""

import numpy as np
import pytest

from secateur.maths import bootstrap as here
from secateur.maths.bootstrap import bootstrap


def test_two_numbers_have_three_means():
    low, high = bootstrap([0.0, 1.0])
    assert (low, high) == (0.0, 1.0), "a quarter of all draws lies at either end"
    assert bootstrap([0.0, 1.0], level=0.4) == (0.5, 0.5), "and half of them in the middle"


def test_it_widens_with_the_spread_and_not_with_the_place():
    x = np.random.default_rng(1).normal(size=40)
    low, high = bootstrap(x)
    assert low < x.mean() < high
    assert bootstrap(x + 5) == pytest.approx((low + 5, high + 5))
    assert bootstrap(3 * x) == pytest.approx((3 * low, 3 * high))
    assert high - low == pytest.approx(2 * 1.96 * x.std(ddof=1) / 40**0.5, rel=0.1), "as the normal law has it"


def test_pieces_draw_what_the_whole_draws(monkeypatch):
    x = np.random.default_rng(2).normal(size=17).tolist()
    whole = bootstrap(x)
    monkeypatch.setattr(here, "_ROOM", 17 * 31)
    assert bootstrap(x) == whole
