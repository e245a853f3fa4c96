"""A law turned around: one crossing, several, none; a lowest point, or none."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.maths.inverting import crossings, lowest


def test_crossings():
    assert crossings(lambda x: 5 / x, 0.5, 0.1, 1e3) == pytest.approx([10])
    assert crossings(lambda x: x + 9 / x, 10.0, 0.1, 1e3) == pytest.approx([1, 9]), "down and up again"
    assert crossings(lambda x: 5 / x, 1e9, 0.1, 1e3) == []
    assert crossings(lambda x: np.where(x > 1, np.log(x), np.nan), 2.0, 0.1, 1e3) == pytest.approx([np.exp(2)])


def test_lowest():
    assert lowest(lambda x: (np.log(x) - 2) ** 2 + 1, 0.1, 1e3) == pytest.approx(np.exp(2), rel=1e-4)
    assert lowest(lambda x: 1 / x, 0.1, 1e3) is None and lowest(lambda x: x, 0.1, 1e3) is None
