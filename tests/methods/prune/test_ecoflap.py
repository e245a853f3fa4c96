"""ECoFLaP by its defining properties: what the slopes estimate, weights put back, shares that add up to the budget."""

import math

import numpy as np
import pytest
import torch

from secateur.methods.prune.ecoflap import ecoflap, expected, probed, shared
from secateur.parts.edits.sparse import Sparse
from secateur.types import Budget, Matrix, Menu, Unit


def test_slopes_along_noise_tell_the_norm_of_the_gradient():
    random = torch.Generator().manual_seed(0)
    w, gradient = torch.randn(20, 20, generator=random), torch.randn(20, 20, generator=random)
    before = w.clone()
    found = probed([lambda: float((w * gradient).sum())] * 3000, w, random, eps=0.1)
    assert found == pytest.approx(math.sqrt(2 / math.pi) * float(gradient.norm()), rel=0.04)
    assert torch.equal(w, before)


def test_the_factors_say_the_same():
    a, g = torch.diag(torch.tensor([1.0, 3.0])), torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    assert expected(a, g) == pytest.approx(math.sqrt(2 / math.pi * 16))
    assert expected(a, g.diagonal()) == expected(a, g) and expected(a, 0 * g) == 0


def test_shares_add_up_within_their_bounds():
    random = np.random.default_rng(0)
    for keep in (0.2, 0.5, 0.8, 0.97):
        score, size = random.exponential(1, 9) ** 3, random.integers(1, 50, 9).astype(float)
        out = shared(score, size, keep)
        assert (out * size).sum() == pytest.approx(keep * size.sum())
        assert out.min() >= max(keep - 0.1, 0) - 1e-12 and out.max() <= 1 + 1e-12
    assert shared(np.ones(4), np.ones(4), 0.6) == pytest.approx(np.full(4, 0.6))
    assert shared(np.array([1.0, 9]), np.ones(2), 0.6, spread=0.0) == pytest.approx([0.6, 0.6])
    assert shared(np.zeros(2), np.ones(2), 0.6) == pytest.approx([0.6, 0.6])
    # by hand: 0.4 each is sure; of 0.2 more a gets 3/4
    assert shared(np.array([3.0, 1]), np.ones(2), 0.5) == pytest.approx([0.55, 0.45])
    # a is full at 1, and b gets what a cannot use
    assert shared(np.array([1.0, 0]), np.ones(2), 0.95) == pytest.approx([1.0, 0.9])


def test_blocks_share_as_a_whole_and_the_budget_holds():
    units = tuple(
        Unit(f"{b}.{n}", "linear", (Matrix(f"{b}.{n}", 64, 64, "x"),), block=b) for b in range(3) for n in "qo"
    )
    edits = tuple(Sparse(keep / 100) for keep in range(5, 100, 5))
    cost = np.array([[edit.cost(unit)["bytes"] for edit in edits] for unit in units])
    damage = np.tile([(1 - edit.keep) ** 3 for edit in edits], (6, 1))
    notes = {"gradients": np.array([1.0, 2, 9, 9, 2, 1])}
    menu = Menu(units, edits, {"payload": cost, "bytes": cost}, damage, 0 * damage, {}, 6 * 4096, notes)
    plan = ecoflap(menu, Budget.parse("9 bits/weight"))
    shares = [plan.edits[unit.name].keep for unit in units]
    assert shares[0] == shares[1] == shares[4] == shares[5] < shares[2] == shares[3]
    assert plan.spent["bits_per_weight"] <= 9 and plan.about["allocate"] == "ecoflap"
