"""UVC's knapsack by its defining properties: slopes, the proximal step, prices, and a budget that holds."""

from itertools import product

import numpy as np
import pytest
import torch

from secateur.methods.allocate.uvc import drop, energies, lost, primal_dual, shrunk, slope
from secateur.types import BudgetError


def test_by_hand():
    """Two groups of three; the budget of 4 lets two go: both of the first, whose energies are 1 and 2."""
    assert drop([np.array([2.0, 9, 1]), np.array([5.0, 8, 7])], [1.0, 1.0], 4.0) == [2, 0]
    assert drop([np.array([2.0, 9, 1]), np.array([5.0, 8, 7])], [1.0, 1.0], 6.0) == [0, 0]
    with pytest.raises(BudgetError, match="one of every group"):
        drop([np.array([2.0, 9, 1])], [1.0], 0.5)


def test_the_slope_at_a_whole_number_is_the_next_smallest_energy():
    e = np.array([4.0, 1.0, 3.0, 2.0])
    for n in range(4):
        assert slope(n, e) == n + 1
        assert lost(n + 1, e) - lost(n, e) == pytest.approx(slope(n, e))
    assert lost(1.2, e) == 3.0  # the count is rounded up


def test_energies_are_of_whole_heads():
    w = torch.tensor([[1.0, 2, 0, 3], [1, 0, 0, 1]])
    assert energies(w).tolist() == [2, 4, 0, 10]
    assert energies(w, per=2).tolist() == [6, 10]


def test_the_proximal_step_is_the_least_of_its_sum():
    w, price, rate = torch.tensor([0.7, -2.0]), 0.3, 0.1
    x = shrunk(w, price, rate)
    steps = torch.linspace(-3, 3, 6001)
    for at in range(2):
        total = (steps - w[at]).square() / (2 * rate) + price * steps.square()
        assert float(x[at]) == pytest.approx(float(steps[total.argmin()]), abs=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_near_the_best_of_all_and_never_over_the_budget(seed):
    random = np.random.default_rng(seed)
    energy = [np.exp(random.normal(0, 1, 6)) * scale for scale in (1.0, 10.0, 0.1)]
    cost = [1.0, 2.0, 3.0]
    for budget in (12.0, 20.0, 28.0):
        found = drop(energy, cost, budget)
        assert sum((6 - n) * c for n, c in zip(found, cost, strict=True)) <= budget
        every = [
            sum(lost(n, e) for n, e in zip(some, energy, strict=True))
            for some in product(range(6), repeat=3)
            if sum((6 - n) * c for n, c in zip(some, cost, strict=True)) <= budget
        ]
        mine = sum(lost(n, e) for n, e in zip(found, energy, strict=True))
        assert min(every) <= mine + 1e-12 and mine <= 1.35 * min(every) + 1e-12


def test_units_alike_go_alike():
    curves = [np.array([0.0, 1.0, 4.0])] * 5
    costs = [np.array([[3.0, 2.0, 1.0]])] * 5
    assert primal_dual(curves, costs, np.array([10.0])).tolist() == [1] * 5
