"""Augmented Hessians by its defining properties: nothing together is nothing added, and bisection is a linear scan."""

import math

import numpy as np
import pytest

from secateur.methods.allocate.augmented_hessians import augmented, dependencies, most, neighbours, widths

OWN = np.array([3.0, 1.0, 2.0, 0.5])


def additive(cut):
    return 0.1 + sum(OWN[i] for i in cut)


def compounding(cut):
    """The last two make each other worse."""
    return additive(cut) + (4.0 if {2, 3} <= set(cut) else 0.0)


def test_by_hand():
    e = dependencies(compounding, 4, neighbours(4))
    assert e[2, 3] == e[3, 2] == pytest.approx(4.0)
    assert np.abs(e).sum() == pytest.approx(8.0)
    # medians: 1.5 of h, 4 of what is together; half of 4 * 1.5 / 4 is added to both
    assert augmented(OWN, np.round(e, 9)).tolist() == pytest.approx([3.0, 1.0, 2.75, 1.25])


def test_a_loss_that_adds_up_leaves_the_ranking_as_it_is():
    pairs = [(i, j) for i in range(4) for j in range(i)]
    e = dependencies(additive, 4, pairs)
    assert np.allclose(e, 0, atol=1e-12)
    assert augmented(OWN, np.zeros((4, 4))).tolist() == OWN.tolist()


@pytest.mark.parametrize("n", [1, 2, 7, 16, 33])
def test_bisection_is_a_linear_scan_with_few_questions(n):
    for true in range(n + 1):
        asked = []
        found = most(lambda k, true=true, asked=asked: asked.append(k) or k <= true, n)
        assert found == true
        assert len(asked) <= math.ceil(math.log2(n + 1))


def test_no_demand_gives_all_the_lowest_and_an_impossible_one_the_base():
    score = [OWN * 0, OWN, OWN * 4]
    assert widths(score, lambda _: True).tolist() == [2, 2, 2, 2]
    assert widths(score, lambda _: False).tolist() == [0, 0, 0, 0]


def test_what_is_accepted_was_measured():
    damage, seen = np.array([[0, 1, 4], [0, 2, 8], [0, 3, 12.0]]), []

    def holds(chosen):
        total = damage[np.arange(3), chosen].sum()
        seen.append((tuple(chosen), total <= 7))
        return total <= 7

    found = widths(list(damage.T), holds)
    assert (tuple(found), True) in seen
    assert found.tolist() == [1, 1, 1]  # 6; one more width for the first would be 9
    assert widths(list(damage.T), lambda c: damage[np.arange(3), c].sum() <= 9).tolist() == [2, 1, 1]
