"""Water-filling: the closed form, its bounds, and nothing better anywhere near."""

import itertools

import numpy as np
import pytest

from secateur.maths.waterfill import waterfill


def test_equal_coefficients_get_the_mean():
    assert waterfill(np.full(5, 3.7), 2.5).tolist() == pytest.approx([2.5] * 5)


def test_scaling_every_coefficient_changes_nothing():
    c = np.array([1.0, 7.0, 0.2])
    np.testing.assert_allclose(waterfill(1e6 * c, 4.0, least=1), waterfill(c, 4.0, least=1), atol=1e-9)


def test_damages_are_equal_where_no_bound_holds():
    c = np.exp(np.random.default_rng(0).normal(size=20))
    bits = waterfill(c, 5.0)
    damage = c * 4.0**-bits
    np.testing.assert_allclose(damage, damage[0])
    assert damage.sum() == pytest.approx(20 * np.exp(np.log(c).mean()) * 4.0**-5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bounds", [(0, np.inf), (2, 8), (2.9, 3.1)])
def test_the_mean_is_kept_and_no_exchange_helps(seed, bounds):
    rng = np.random.default_rng(seed)
    c, size = np.exp(rng.normal(0, 3, 30)), rng.integers(1, 9, 30).astype(float)
    bits = waterfill(c, 3.0, size, *bounds)
    assert (bits >= bounds[0]).all() and (bits <= bounds[1]).all()
    assert (size * bits).sum() == pytest.approx(3.0 * size.sum())
    here = (size * c * 4.0**-bits).sum()
    for i, j in itertools.permutations(range(30), 2):
        moved = bits.copy()
        moved[i] += 1e-4 / size[i]
        moved[j] -= 1e-4 / size[j]
        if bounds[0] <= moved[j] and moved[i] <= bounds[1]:
            assert (size * c * 4.0**-moved).sum() >= here * (1 - 1e-12)


def test_three_columns_against_brute_force():
    c = np.array([0.5, 3.0, 40.0])
    steps = np.arange(0, 9, 0.02)
    a, b = np.meshgrid(steps, steps)
    rest = 9 - a - b
    total = np.where(rest >= 0, c[0] * 4**-a + c[1] * 4**-b + c[2] * 4.0 ** -np.abs(rest), np.inf)
    best = (c * 4.0 ** -waterfill(c, 3.0)).sum()
    assert best <= total.min() <= best * 1.001


def test_another_exponent():
    assert waterfill(np.array([1.0, 8.0]), 3.0, exponent=3.0).tolist() == pytest.approx([2.5, 3.5])


def test_what_does_no_damage_gets_the_least():
    assert waterfill(np.array([0.0, 1.0, 1.0]), 4.0, least=2.0).tolist() == pytest.approx([2.0, 5.0, 5.0])
    assert waterfill(np.zeros(3), 4.0).tolist() == [4.0] * 3


@pytest.mark.parametrize("mean", [2.0, 8.0])
def test_at_the_bounds_everything_is_at_the_bounds(mean):
    assert waterfill(np.array([1.0, 50.0, 0.01]), mean, least=2, most=8).tolist() == pytest.approx([mean] * 3)


def test_a_mean_outside_the_bounds():
    with pytest.raises(ValueError, match="outside the bounds 2 to 8"):
        waterfill(np.ones(3), 9.0, least=2, most=8)
