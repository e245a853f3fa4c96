"""Which slices are trained: counted by hand, by policy."""

from collections import Counter

import pytest
import torch

from secateur.model.elastic import Axis, full, least
from secateur.parts.slices import POLICIES, policy
from secateur.types import SecateurError

AXES = (Axis("width", (0.25, 0.5, 0.75, 1.0)), Axis("depth", (0.5, 1.0)))


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", POLICIES)
def test_contract_as_many_slices_as_passes_of_sizes_that_there_are(name):
    for n in (1, 2, 5):
        slices = policy(name)(AXES, n, draw(n))
        assert len(slices) == n
        assert all(one.share(axis.name) in axis.shares for one in slices for axis in AXES)
        assert slices == policy(name)(AXES, n, draw(n)), "the same chance, the same slices"


def test_uniform_is_uniform_in_every_axis():
    drawn = Counter(one.share("width") for seed in range(400) for one in policy("uniform")(AXES, 1, draw(seed)))
    assert all(60 < count < 140 for count in drawn.values()) and len(drawn) == 4


def test_sandwich_has_both_ends():
    assert policy("sandwich")(AXES, 3, draw())[:2] == [full(AXES), least(AXES)]


def test_fair_takes_every_size_once_before_any_comes_again():
    slices = policy("fair")(AXES, 8, draw())
    assert Counter(one.share("width") for one in slices) == dict.fromkeys(AXES[0].shares, 2)
    assert sorted(one.share("width") for one in slices[:4]) == list(AXES[0].shares)
    assert Counter(one.share("depth") for one in slices) == {0.5: 4, 1.0: 4}


def test_a_policy_that_nobody_knows():
    with pytest.raises(SecateurError, match="uniform, sandwich, fair, whole"):
        policy("greedy")
