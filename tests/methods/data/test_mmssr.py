"""An even share for every capability and style: by hand, and the laws of the card."""

from __future__ import annotations

import pytest
import torch

from secateur.methods.data.mmssr import fifths, sample
from secateur.parts.select import Room


def room(n: int, most: int) -> Room:
    return Room(torch.ones(n, dtype=torch.long), most, "examples", str(most))


def styles(*of: list[int]) -> torch.Tensor:
    out = torch.zeros(len(of), 1 + max(max(some) for some in of), dtype=torch.bool)
    for row, some in enumerate(of):
        out[row, some] = True
    return out


def test_by_hand():
    # one capability; style 0 has one example, style 1 two, style 2 four: two each of six, and the rare ones owe
    ratings = torch.tensor([[3.0], [1], [5], [1], [2], [4], [3]])
    of = styles([0], [1], [1], [2], [2], [2], [2])
    assert sample(ratings, of, room(7, 6)).tolist() == [0, 2, 1, 5, 6, 4]
    assert sample(ratings, of, room(7, 3)).tolist() == [0, 2, 5], "the best of each"
    assert sample(ratings, of, room(7, 6), threshold=2.0).tolist() == [0, 2, 5, 6], "nobody else is rated above it"


def test_several_capabilities_share_the_budget():
    ratings = torch.tensor([[5.0, 0], [4, 0], [3, 0], [0, 5], [0, 4], [0, 3]])
    of = styles([0], [0], [0], [0], [0], [0])
    assert sorted(sample(ratings, of, room(6, 4)).tolist()) == [0, 1, 3, 4]
    ratings[3:, 1] = 0
    assert sorted(sample(ratings, of, room(6, 3)).tolist()) == [0, 1, 2], "one that has no candidates leaves its share"


@pytest.mark.parametrize("most", [1, 2, 7, 50, 119, 120])
@pytest.mark.parametrize("seed", range(3))
def test_the_laws_of_the_card(most, seed):
    draw = torch.Generator().manual_seed(seed)
    ratings = torch.randint(0, 6, (120, 4), generator=draw).float() * (torch.rand(120, 4, generator=draw) < 0.3)
    of = torch.rand(120, 5, generator=draw) < 0.3  # some have several, and some none
    at = sample(ratings, of, room(120, most))
    rated = int((ratings > 0).any(1).sum())
    assert len(at) == min(most, rated) == len(at.unique()), "exactly as many, without repeats"
    assert bool((ratings[at] > 0).any(1).all())


@pytest.mark.parametrize(("groups", "most"), [(4, 20), (4, 22), (5, 9)])
def test_equal_groups_get_equal_shares_of_their_best(groups, most):
    draw = torch.Generator().manual_seed(groups)
    of = torch.arange(40 * groups) % groups
    ratings = torch.rand(40 * groups, 1, generator=draw) + 1
    at = sample(ratings, torch.nn.functional.one_hot(of).bool(), room(40 * groups, most))
    for g in range(groups):
        mine, got = (of == g).nonzero()[:, 0], at[of[at] == g]
        assert most // groups <= len(got) <= most // groups + 1
        best = mine[ratings[mine, 0].argsort(descending=True)][: len(got)]
        assert sorted(got.tolist()) == sorted(best.tolist())


def test_a_rare_style_is_used_up_before_others_inherit_its_share():
    of = torch.tensor([0] * 3 + [1] * 30 + [2] * 60)
    at = sample(torch.ones(93, 1), torch.nn.functional.one_hot(of).bool(), room(93, 30))
    assert torch.bincount(of[at]).tolist() == [3, 13, 14] or torch.bincount(of[at]).tolist() == [3, 17, 10]
    assert {0, 1, 2} <= set(at.tolist())


def test_tokens_are_a_budget_too():
    draw = torch.Generator().manual_seed(0)
    cost, of = torch.randint(5, 40, (90,), generator=draw), torch.arange(90) % 9
    for most in (5, 60, 700):
        at = sample(
            torch.rand(90, 2, generator=draw) + 1,
            torch.nn.functional.one_hot(of).bool(),
            Room(cost, most, "tokens", ""),
        )
        assert int(cost[at].sum()) <= most and len(at.unique()) == len(at)
        assert int(cost[at].sum()) > most - 40, "and is made use of"


def test_fifths_hold_a_fifth_each():
    assert torch.bincount(fifths(torch.randn(100)).long()).tolist() == [0, 20, 20, 20, 20, 20]
    assert fifths(torch.ones(5)).tolist() == [1, 2, 3, 4, 5] and fifths(torch.tensor([7.0])).tolist() == [1]
