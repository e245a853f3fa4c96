"""RD pruning by its defining properties: curves that begin at nothing and add up, and the best plan there is."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from secateur.methods.prune.rd_prune import allocated, curves, pruned

KEEPS = (1.0, 0.75, 0.5, 0.25)


def network(seed=0):
    random = torch.Generator().manual_seed(seed)
    weights = {f"l{i}": torch.randn(16, 16, generator=random) / 4 for i in range(3)}
    x = torch.randn(200, 16, generator=random)

    def outputs(put):
        h = x
        for name, w in weights.items():
            h = torch.tanh(h @ put.get(name, w).T)
        return h

    return weights, outputs


def test_the_largest_stay():
    w = torch.tensor([[1.0, -3.0], [2.0, 0.5]])
    assert pruned(w, 0.5).tolist() == [[0, -3], [2, 0]] and pruned(w, 1.0) is w


def test_curves_begin_at_nothing_and_rise():
    weights, outputs = network()
    curve = curves(outputs, weights, KEEPS)
    assert curve.shape == (3, 4) and not curve[:, 0].any() and (np.diff(curve) > 0).all()
    worst = curves(outputs, weights, KEEPS, worst=True)
    assert (worst[:, 1:] > curve[:, 1:]).all()


def test_distances_about_add_up():
    weights, outputs = network()
    curve = curves(outputs, weights, (0.75,))
    moved = outputs({name: pruned(w, 0.75) for name, w in weights.items()}) - outputs({})
    assert float(moved.square().mean()) == pytest.approx(curve.sum(), rel=0.35)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.62, 0.9])
def test_no_levels_within_the_budget_are_better(keep):
    curve = curves(*reversed(network(1)), KEEPS)
    size = np.array([256.0, 100.0, 300.0])
    found = allocated(curve, size, KEEPS, keep)
    best = min(
        curve[range(3), some].sum()
        for some in product(range(4), repeat=3)
        if (np.array(KEEPS)[list(some)] * size).sum() <= keep * size.sum()
    )
    assert curve[range(3), [KEEPS.index(one) for one in found]].sum() == pytest.approx(best)
    assert (found * size).sum() <= keep * size.sum() * (1 + 1e-9)


def test_more_room_is_never_worse():
    curve = curves(*reversed(network(2)), KEEPS)
    levels = [allocated(curve, np.full(3, 256.0), KEEPS, keep) for keep in np.arange(0.25, 1.01, 0.05)]
    sums = [curve[range(3), [KEEPS.index(one) for one in some]].sum() for some in levels]
    assert all(after <= before + 1e-12 for before, after in pairwise(sums)) and sums[-1] == 0
