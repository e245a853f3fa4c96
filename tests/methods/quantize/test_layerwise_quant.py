"""LIM and ZD by their defining properties; the top-k rule within true bytes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from secateur.methods.quantize.layerwise_quant import LayerwiseQuant, lim, zd
from secateur.parts.edits import parse
from secateur.types import Budget, BudgetError, Matrix, Menu, PlanError, Unit

LOW, HIGH = "int(bits=2, group=64)", "int(bits=4, group=64)"


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_block_that_changes_nothing_is_least_important():
    x = draw(2, 30, 16)
    assert lim(x, x) == pytest.approx(-1.0)
    assert lim(x, 3 * x) == pytest.approx(-1.0), "only the direction counts"
    assert lim(x, -x) == pytest.approx(1.0)
    assert -1 < lim(x, x + 0.3 * draw(2, 30, 16, seed=1)) < lim(x, x + 3 * draw(2, 30, 16, seed=1)) < 1


def test_lim_by_hand():
    entering, leaving = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    assert lim(entering, leaving) == pytest.approx(-(0.5**0.5 + 0) / 2)


def test_zd_of_known_distributions():
    assert zd([draw(400_000)]) == pytest.approx(0.1587, abs=0.002)
    uniform = torch.rand(400_000, generator=torch.Generator().manual_seed(0))
    assert zd([uniform]) == pytest.approx(0.2113, abs=0.002)


def test_zd_counts_a_block_as_one_and_only_the_upper_side():
    w = draw(1000) ** 3
    assert zd([w[:300].reshape(30, 10), w[300:]]) == zd([w])
    assert zd([5 * w]) == zd([w])
    assert zd([torch.tensor([0.0, 0, 0, 10])]) == 0.25 and zd([torch.tensor([0.0, 0, 0, -10])]) == 0


@pytest.fixture
def menu():
    """Eight blocks of two unequal units, the head outside; block 5 matters most, then 0, then the others in order."""
    sizes = [(4096, 8192)] * 8
    units = [
        Unit(f"{b}.{n}", "linear", (Matrix(f"{b}.{n}", s // 64, 64, "x"),), block=b)
        for b, pair in enumerate(sizes)
        for n, s in zip("ab", pair, strict=True)
    ]
    units.append(Unit("head", "head", (Matrix("head", 64, 64, "x"),)))
    size = np.array([u.size for u in units], dtype=float)[:, None]
    cost = size * np.array([2.25, 3.25, 4.25, 16]) / 8
    damage = size * np.array([0.1, 0.02, 0.005, 0])
    edits = tuple(map(parse, [LOW, "int(bits=3, group=64)", HIGH, "keep()"]))
    score = np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.9, 0.1, 0.0])
    notes = {"lim": np.r_[(score - 1).repeat(2), np.nan], "zd": np.r_[(1 - score).repeat(2), np.nan]}
    return Menu(tuple(units), edits, {"payload": cost, "bytes": cost}, damage, 0 * damage, {}, int(size.sum()), notes)


def raised(menu, plan):
    """The blocks that got the high edit, after checking that none is of two minds."""
    by = {}
    for unit in menu.units:
        by.setdefault(unit.block, set()).add(plan.edits[unit.name])
    assert all(len(edits) == 1 for edits in by.values())
    return {block for block, edits in by.items() if edits == {parse(HIGH)}} - {None}


@pytest.mark.parametrize("note", ["lim", "zd"])
def test_the_most_important_blocks_are_raised(menu, note):
    rule = LayerwiseQuant(note, high=HIGH, low=LOW)
    plan = rule(menu, Budget.parse("3.25 bits/weight"))
    assert raised(menu, plan) == {5, 0, 1, 2} - ({2} if plan.spent["bits_per_weight"] < 3.2 else set())
    assert plan.edits["head"] == parse(HIGH)
    assert plan.about["allocate"] == "layerwise-quant"


def test_the_average_is_the_request_to_within_one_block(menu):
    block = 2 * 12288 / menu.weights
    for bits in np.arange(2.4, 4.25, 0.1):
        spent = LayerwiseQuant(high=HIGH, low=LOW)(menu, Budget.parse(f"{bits} bits/weight")).spent["bits_per_weight"]
        assert bits - block < spent <= bits


def test_at_either_end_the_model_is_uniform(menu):
    high = LayerwiseQuant(high=HIGH, low=LOW)(menu, Budget.parse("4.25 bits/weight"))
    assert set(high.edits.values()) == {parse(HIGH)}
    low = LayerwiseQuant(high=LOW, low=LOW)(menu, Budget.parse("2.25 bits/weight"))
    assert set(low.edits.values()) == {parse(LOW)}


def test_left_alone_it_takes_the_edits_around_the_budget(menu):
    plan = LayerwiseQuant()(menu, Budget.parse("3.7 bits/weight"))
    assert {repr(edit) for edit in plan.edits.values()} == {"int(bits=3, group=64)", HIGH}


def test_ties_go_to_the_block_that_comes_first(menu):
    level = replace(menu, notes={"lim": np.zeros(17)})
    assert raised(menu, LayerwiseQuant(high=HIGH, low=LOW)(level, Budget.parse("3.25 bits/weight"))) <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (LayerwiseQuant("relevance"), "has no note `relevance` to rank blocks by\nhint: it has lim, zd"),
        (LayerwiseQuant(high=HIGH), "needs both `low` and `high`"),
        (LayerwiseQuant(high="int(bits=8)", low=LOW), "`int(bits=8)` is not on this menu\nhint: it has int(bits=2"),
    ],
)
def test_what_it_cannot_do(menu, rule, words):
    with pytest.raises(PlanError) as caught:
        rule(menu, Budget.parse("3 bits/weight"))
    assert words in str(caught.value)


def test_a_menu_without_notes(menu):
    with pytest.raises(PlanError, match="hint: give it the blocks' `lim` or `zd`"):
        LayerwiseQuant()(replace(menu, notes={}), Budget.parse("3 bits/weight"))


def test_a_low_edit_that_is_too_dear(menu):
    with pytest.raises(BudgetError, match=r"`int\(bits=4, group=64\)` in every block does not fit 3 bits/weight"):
        LayerwiseQuant(high="keep()", low=HIGH)(menu, Budget.parse("3 bits/weight"))
