"""Channels laid side by side."""

from __future__ import annotations

import torch

from secateur.maths.matching import cosines, matched


def test_a_shuffled_copy_is_found_whatever_else_is_as_large():
    draw = torch.Generator().manual_seed(0)
    w, v = torch.randn(16, 8, generator=draw), torch.randn(16, 5, generator=draw)
    shuffle = torch.randperm(16, generator=draw)
    found = matched([w, v], [w[shuffle], v[shuffle]])
    assert torch.equal(w[shuffle][found], w) and torch.equal(v[shuffle][found], v)


def test_the_largest_sum_is_taken_and_not_the_nearest_of_each():
    # the second of `other` is the nearest to both; one of them must do with the first
    reference, other = torch.tensor([[1.0, 0.0], [0.9, 0.1]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    assert matched([reference], [other]).tolist() == [1, 0]


def test_cosines_do_not_know_sizes():
    x = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    found = cosines(x @ x.mT)
    assert found[0, 1] == 1 and found[0, 2] == 0 and not found[3].any()
