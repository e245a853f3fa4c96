"""OWL by its defining properties: ratios only, shares that add up, more outliers never keep less."""

import numpy as np
import pytest
import torch

from secateur.methods.prune.owl import Owl, outliers, owl, tilts
from secateur.parts.edits.sparse import Sparse
from secateur.types import Budget, Matrix, Menu, Unit


def block(seed=0, heavy=False):
    random = torch.Generator().manual_seed(seed)
    w = [torch.randn(32, 64, generator=random) for _ in range(2)]
    if heavy:
        w = [x * torch.exp(torch.randn(32, 64, generator=random)) for x in w]
    return [(x, 1 + torch.rand(64, generator=random)) for x in w]


def test_by_hand():
    pair = [(torch.tensor([[1.0, -1.0, 1.0, 1.0]]), torch.tensor([1.0, 1, 1, 7]))]  # scores 1 1 1 7, mean 2.5
    assert outliers(pair, m=2) == 25 and outliers(pair, m=3) == 0


def test_only_ratios_count():
    plain = outliers(block(), 3)
    assert plain == pytest.approx(outliers([(5 * w, 3 * n) for w, n in block()], 3))
    scale = torch.exp(torch.randn(64, generator=torch.Generator().manual_seed(9)))
    assert plain == pytest.approx(outliers([(w / scale, n * scale) for w, n in block()], 3), abs=0.05)
    assert outliers(block(heavy=True), 3) > plain


def test_the_mean_is_none_and_the_ends_are_two_spreads_apart():
    found, size = np.array([1.0, 4.0, 2.0, np.nan]), np.array([1.0, 2.0, 3.0, 9.0])
    tilt = tilts(found, size, 0.08)
    assert np.average(tilt[:3], weights=size[:3]) == pytest.approx(0) and tilt[3] == 0
    assert tilt[:3].max() - tilt[:3].min() == pytest.approx(0.16)
    assert (np.argsort(tilt[:3]) == np.argsort(found[:3])).all()
    assert not tilts(np.full(3, 2.0), np.ones(3), 0.08).any() and not tilts(found, size, 0.0).any()


def menu(found):
    units = tuple(Unit(f"u{i}", "linear", (Matrix(f"u{i}", 64, 64, "x"),), block=i) for i in range(len(found)))
    edits = tuple(Sparse(keep / 100) for keep in range(5, 100, 5))
    cost = np.array([[edit.cost(unit)["bytes"] for edit in edits] for unit in units])
    damage = np.tile([(1 - edit.keep) ** 3 for edit in edits], (len(units), 1))
    notes = {"outliers": np.array(found)}
    return Menu(units, edits, {"payload": cost, "bytes": cost}, damage, 0 * damage, {}, 4096 * len(units), notes)


def test_blocks_with_more_outliers_keep_more_within_the_budget():
    found = menu([1.0, 5.0, 3.0, 1.0])
    plan = owl(found, Budget.parse("9 bits/weight"))
    shares = [plan.edits[unit.name].keep for unit in found.units]
    assert shares[1] > shares[2] > shares[0] == shares[3]
    assert shares[1] - shares[0] == pytest.approx(0.15, abs=0.051) and 0.4 < np.mean(shares) <= 0.5
    assert len(set(Owl(spread=0.0)(found, Budget.parse("9 bits/weight")).edits.values())) == 1
    assert set(owl(menu([2.0] * 4), Budget.parse("9 bits/weight")).edits.values()) == {Sparse(0.5)}
