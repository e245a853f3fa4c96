"""Which choices stay on a menu, by hand."""

from __future__ import annotations

import numpy as np

from secateur.cut.shapes.joint import _thinned
from secateur.cut.shapes.singles import undominated, ways


def costs(*rows: tuple[float, float]) -> np.ndarray:
    """Bytes and FLOPs as resources have them: bytes, payload, FLOPs, cache."""
    return np.array([(size, size, flops, 7.0) for size, flops in rows])


def test_where_flops_are_alike_bytes_alone_decide():
    cost, damage = costs((4, 9), (3, 9), (2, 9), (2, 9)), np.array([0.0, 0.2, 0.1, 0.3])
    assert undominated(cost, damage) == [0, 2], "three bytes damage more than two"
    assert len(ways(cost)) == 1


def test_what_saves_flops_stays_though_bytes_have_better():
    cost, damage = costs((4, 9), (2, 9), (3, 5), (3, 6)), np.array([0.0, 0.1, 0.2, 0.3])
    assert undominated(cost, damage) == [0, 1, 2], "the last is larger in both than nothing, and damages more"
    assert _thinned(cost, damage, 8) == [0, 1, 2]


def test_of_hundreds_about_as_many_stay_as_may():
    random = np.random.default_rng(0)
    size, flops = random.uniform(1, 2, (2, 4000))
    cost, damage = costs(*zip(size, flops, strict=True)), np.exp(-3 * size - 3 * flops + random.normal(size=4000))
    some = _thinned(cost, damage, 64)
    assert len(some) <= 2 * 64
    assert {int(np.argmin(size)), int(np.argmin(flops))} <= set(some), "the smallest of each"
