"""How much to keep, who chooses, and the top of what is scored."""

from __future__ import annotations

import pytest
import torch

from secateur.methods.data.simcore import SimCore
from secateur.parts.select import Keep, Room, find, names
from secateur.parts.select.policies import ranked, top
from secateur.types import BudgetError, PlanError

SCORES = torch.tensor([0.1, 0.9, float("nan"), 0.5, 0.9, -3.0])


def room(most: int, cost: list[int] | None = None) -> Room:
    costs = torch.tensor(cost or [1] * 6)
    return Room(costs, most, "tokens" if cost else "examples", str(most))


def test_the_top_by_hand():
    assert ranked(SCORES).tolist() == [1, 4, 3, 0, 5, 2], "equal ones in their order, and what has no score comes last"
    assert top(SCORES, room(3)).tolist() == [1, 4, 3]
    assert top(SCORES, room(6, [2, 5, 1, 2, 4, 1])).tolist() == [1, 5], "what does not fit is passed over"


@pytest.mark.parametrize("most", [1, 3, 17, 40])
@pytest.mark.parametrize("priced", [False, True])
def test_no_choice_goes_over_its_room_or_takes_one_twice(most, priced):
    draw = torch.Generator().manual_seed(most)
    scores = torch.randn(40, generator=draw)
    cost = torch.randint(1, 9, (40,), generator=draw) if priced else torch.ones(40, dtype=torch.long)
    mine = Room(cost, most, "tokens" if priced else "examples", "")
    at = top(scores, mine)
    assert len(at.unique()) == len(at) and int(cost[at].sum()) <= most
    assert priced or len(at) == most
    assert torch.equal(top(scores, mine), top(scores.exp(), mine)), "only the order counts"


@pytest.mark.parametrize(
    ("asked", "n", "tokens", "most"),
    [
        ("10%", 57, None, 5),
        (" 0.5 % ", 1000, None, 5),
        ("29%", 100, None, 29),
        ("100%", 7, None, 7),
        ("500", 500, None, 500),
        ("1_000", 2000, None, 1000),
        ("12 tokens", 3, [5, 9, 7], 12),
        ("50% of the tokens", 3, [5, 9, 7], 10),
        ("12 examples", 20, None, 12),
    ],
)
def test_how_much_is_read_as_it_is_said(asked, n, tokens, most):
    found = Keep.parse(asked).room(n, None if tokens is None else torch.tensor(tokens))
    assert found.most == most and found.unit == ("examples" if tokens is None else "tokens")


@pytest.mark.parametrize(
    ("asked", "n", "tokens", "message", "hint"),
    [
        ("some", 5, None, "cannot read `--keep some`", "10%"),
        ("10 MB", 5, None, "cannot read", "20000 tokens"),
        ("-3", 5, None, "cannot read", "10%"),
        ("1.5", 5, None, "no whole number", "10%"),
        ("101%", 5, None, "more than all there is", "10%"),
        ("10%", 5, None, "the data holds 5 examples: that is not one", "--keep 1 is the least, 20%"),
        ("0", 5, None, "that is not one", "--keep 1"),
        ("6", 5, None, "asked to keep 6, but the data holds 5 examples", "at most 5"),
        ("4 tokens", 2, [5, 9], "no example fits into", '"5 tokens"'),
        ("99 tokens", 2, [5, 9], "holds 14 tokens", "at most 14"),
        ("9 tokens", 2, None, "pictures have no tokens", "number of examples"),
    ],
)
def test_what_cannot_be_kept_is_told(asked, n, tokens, message, hint):
    with pytest.raises(BudgetError) as said:
        Keep.parse(asked).room(n, None if tokens is None else torch.tensor(tokens))
    assert message in said.value.message and hint in said.value.hint


def test_choosers_are_found_by_path_and_their_knobs_turned():
    assert {"random", "loss", "entropy", "margin", "easy", "simcore"} <= set(names())
    assert find("simcore") == SimCore() and find("simcore(patience=5, stop=False)") == SimCore(patience=5, stop=False)
    assert find(" simcore( threshold=1 ) ") == SimCore(threshold=1)
    assert "dendromap" not in names(), "a map is no choice"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("simcor", "no method `simcor` chooses", "`simcore`"),
        ("gptq", "no method `gptq` chooses", "random"),
        ("simcore(depth=3)", "cannot set `depth`", "clusters=100, patience=20"),
        ("simcore(3)", "a value without a name", "its knobs are"),
        ("simcore(clusters='many')", "is no int", "its knobs"),
        ("simcore(clusters=True)", "is no int", "its knobs"),
        ("simcore(clusters=", "cannot read", "its knobs"),
        ("simcore(clusters=open('x'))", "cannot read", "its knobs"),
    ],
)
def test_methods_that_are_not_there(words, message, hint):
    with pytest.raises(PlanError) as said:
        find(words)
    assert message in said.value.message and hint in said.value.hint
