"""Essential sparsity by its defining properties: nested masks, one threshold for all layers, and knees by hand."""

import numpy as np
import pytest
import torch

from secateur.methods.prune.essential_sparsity import bend, essential, n_of_m, swept

SHARES = (0.0, 0.3, 0.5, 0.9)


def layers(scale=1.0):
    random = torch.Generator().manual_seed(0)
    return {"a": scale * torch.randn(8, 8, generator=random), "b": scale * 2 * torch.randn(4, 8, generator=random)}


def seen(weights, **more):
    puts = []
    swept(lambda put: puts.append(put) or 0.0, weights, SHARES, **more)
    return puts


def test_masks_are_nested_and_one_threshold_serves_all_layers():
    puts = seen(layers())
    for share, put, after in zip(SHARES, puts, [*puts[1:], None], strict=True):
        flat = torch.cat([w.flatten() for w in put.values()])
        assert int((flat == 0).sum()) == round(share * 96)
        whole = torch.cat([w.flatten() for w in layers().values()])
        if share:
            assert whole[flat != 0].abs().min() >= whole[flat == 0].abs().max()
        if after is not None:
            assert all(bool(((after[name] == 0) | (after[name] == put[name])).all()) for name in put)


def test_a_common_scale_changes_no_mask():
    for one, other in zip(seen(layers()), seen(layers(7.0)), strict=True):
        assert all(torch.equal(one[name] != 0, other[name] != 0) for name in one)


def test_other_rankings():
    noise = torch.Generator().manual_seed(1)
    puts = seen(layers(), rank=lambda w: torch.rand(w.shape, generator=noise))
    assert (puts[2]["a"] == 0).sum() + (puts[2]["b"] == 0).sum() == 48


def test_n_of_m():
    put = n_of_m(layers(), 1, 4)
    assert all(((w.view(len(w), -1, 4) != 0).sum(-1) == 1).all() for w in put.values())
    assert all(torch.equal(w, layers()[name]) for name, w in n_of_m(layers(), 4, 4).items())


def test_knees_by_hand():
    shares, score = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], np.array([1.0, 0.999, 0.995, 0.97, 0.5, 0.1])
    assert essential(shares, score) == 0.4 and essential(shares, score, tolerance=0.05) == 0.6
    assert bend(shares, score) == pytest.approx(0.6)
    # what falls and comes back has fallen
    assert essential(shares, np.array([1.0, 0.9, 1.0, 1.0, 1.0, 1.0])) == 0.0
    # scores below zero, like minus a loss
    assert essential(shares[:3], np.array([-2.0, -2.01, -2.2])) == 0.2
