"""What is like a target: by hand on a circle, the laws of the card, and the rule by which it stops. Through the front
door it goes in `tests/front_door/test_select.py`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.maths.clustering import directions, scaled
from secateur.methods.data.simcore import SimCore
from secateur.parts.select import Room


def room(n: int, most: int) -> Room:
    return Room(torch.ones(n, dtype=torch.long), most, "examples", str(most))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kinds(n: int = 300, relevant: int = 3, of: int = 30, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A target of a few directions, a pool of many, and which of the pool are of the target's."""
    draw = seeded(seed)
    axes = directions(torch.randn(of, 16, generator=draw))
    mine = torch.arange(n) % of
    pool = axes[mine] + torch.randn(n, 16, generator=draw) * 0.05
    target = axes[torch.arange(4 * relevant) % relevant] + torch.randn(4 * relevant, 16, generator=draw) * 0.05
    return target, pool, mine < relevant


def test_by_hand():
    # around the mean of the pool: two of the target's direction, then those at right angles, then the others
    pool = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0], [-2.0, 0.0]])
    target = torch.tensor([[3.0, 0.0]])
    found = SimCore().choose(target, pool, room(6, 4), seeded())
    assert found.at.tolist() == [0, 1, 2, 3] and found.about["rounds"] == 4 and not found.about["stopped"]
    assert found.score.tolist() == pytest.approx([1, 1, 0, 0, -1, -1], abs=1e-6)


@pytest.mark.parametrize("most", [1, 7, 30, 299])
def test_the_laws_of_the_card(most):
    target, pool, _ = kinds()
    found = SimCore(clusters=5).choose(target, pool, room(300, most), seeded())
    assert len(found.at.unique()) == len(found.at) <= most, "no repeats"
    assert len(found.at) <= found.about["rounds"] * found.about["centres"]
    values = found.about["likeness_of_rounds"]
    assert values == sorted(values, reverse=True)


def test_one_centre_ranks_by_the_mean():
    target, pool, _ = kinds()
    found = SimCore(clusters=1, stop=False).choose(target, pool, room(300, 40), seeded())
    mean = directions(directions(scaled(target, pool)).mean(0, keepdim=True))
    expected = (directions(scaled(pool)) @ mean[0]).argsort(descending=True, stable=True)[:40]
    assert found.at.tolist() == expected.tolist()


def test_it_stops_where_the_resemblance_ends():
    target, pool, mine = kinds()
    few = SimCore(patience=2).choose(target, pool, room(300, 200), seeded())
    assert few.about["stopped"] and len(few.at) < 45 and "stopped after" in few.about["said"]
    assert mine[few.at].double().mean() > 0.7, "what it kept is what was wanted"
    all_of_it = SimCore(patience=2, stop=False).choose(target, pool, room(300, 200), seeded())
    assert len(all_of_it.at) == 200 and not all_of_it.about["stopped"]
    assert set(few.at.tolist()) <= set(all_of_it.at.tolist()), "until then they agree"
    assert SimCore(patience=2).choose(target, pool, room(300, 10), seeded()).at.tolist() == few.at[:10].tolist()


def test_where_all_are_alike_it_never_stops():
    pool = torch.ones(50, 4)
    found = SimCore(patience=1).choose(torch.ones(3, 4), pool, room(50, 40), seeded())
    assert len(found.at) == 40 and not found.about["stopped"]


def test_room_in_tokens_is_never_exceeded():
    target, pool, _ = kinds()
    cost = torch.randint(5, 60, (300,), generator=seeded(3))
    for most in (5, 100, 2000):
        found = SimCore(clusters=4).choose(target, pool, Room(cost, most, "tokens", ""), seeded())
        assert int(cost[found.at].sum()) <= most and len(found.at.unique()) == len(found.at)
        assert int(cost[found.at].sum()) > most - 60, "and is made use of"
