"""BAQ by its defining properties: equal losses, scale does not matter, the budget holds; better than equal widths."""

import itertools

import numpy as np
import pytest
import torch

from secateur.methods.quantize.baq import RowRange, baq, baq_columns, closed_form, gptq, levels, widths
from secateur.parts import allocate
from secateur.parts.edits import parse
from secateur.types import Budget, Matrix, Menu, Unit


def correlated(seed=0, rows=48, cols=64, spread=1.5):
    """Weights and the Gram matrix of correlated inputs whose sizes are spread log-normally."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(cols, cols, generator=rng, dtype=torch.float64) / cols**0.5 + torch.eye(cols)
    size = torch.exp(spread * torch.randn(cols, generator=rng, dtype=torch.float64))
    x = torch.randn(512, cols, generator=rng, dtype=torch.float64) @ mix * size
    return torch.randn(rows, cols, generator=rng, dtype=torch.float64), x.mT @ x / 512


def test_equal_losses_get_equal_bits():
    assert closed_form(np.full(6, 0.3), 2.5).tolist() == pytest.approx([2.5] * 6)
    assert levels(np.full(6, 0.3), 3.0).tolist() == [8] * 6
    assert widths(np.full(6, 0.3), 3.0).tolist() == [3] * 6


def test_losses_are_equal_afterwards_and_the_total_is_the_geometric_mean():
    c = np.exp(np.random.default_rng(0).normal(0, 1, 40))
    loss = c * 4.0 ** -closed_form(c, 4.0)
    np.testing.assert_allclose(loss, loss[0])
    assert loss.sum() / (c * 4.0**-4).sum() == pytest.approx(np.exp(np.log(c).mean()) / c.mean())


def test_the_scale_of_the_losses_does_not_matter():
    c = np.exp(np.random.default_rng(1).normal(0, 2, 30))
    np.testing.assert_allclose(closed_form(c, 3.0), closed_form(1e-9 * c, 3.0), atol=1e-9)
    assert levels(c, 3.0).tolist() == levels(1e5 * c, 3.0).tolist()


def test_three_columns_against_brute_force_over_widths():
    c = np.array([0.7, 5.0, 90.0])
    for bits in (2.5, 3, 3.67, 5):
        chosen = widths(c, bits)
        options = [w for w in itertools.product((2, 3, 4, 8), repeat=3) if sum(w) <= 3 * bits]
        assert (c * 4.0**-chosen).sum() == pytest.approx(min((c * 4.0 ** -np.array(w)).sum() for w in options))


@pytest.mark.parametrize("bits", [1.5, 2.0, 3.0, 4.2])
def test_the_official_rounding_misses_the_budget_and_ours_does_not(bits):
    c = np.exp(np.random.default_rng(2).normal(0, 2, 200))
    official, held = levels(c, bits, offset=bits), levels(c, bits)
    assert np.log2(held).mean() <= bits
    assert np.log2(held).mean() > bits - 0.05
    assert (held == np.round(held)).all() and held.min() >= 1 and held.max() <= 256
    assert abs(np.log2(official).mean() - bits) > bits - np.log2(held).mean()


def test_a_column_that_loses_nothing_gets_one_level():
    assert levels(np.array([0.0, 1.0, 1.0]), 2.0)[0] == 1
    assert levels(np.zeros(3), 2.0).tolist() == [4, 4, 4]


def test_rows_keep_their_range_and_zero():
    w = torch.tensor([[-1.0, 0.2, 3.0], [0.5, 0.7, 0.9], [0.0, 0.0, 0.0]])
    grid = RowRange.fit(w, torch.tensor([4.0, 1.0, 9.0]))
    values = grid.snap(w, grid.scale, grid.zero)
    assert (values[:, 1] == 0).all(), "one level is zero"
    assert (values[2] == 0).all()
    np.testing.assert_allclose(grid.snap(values, grid.scale, grid.zero), values)
    assert abs(values[0, 2] - 3.0) <= 0.25 and abs(values[1, 2] - 0.9) <= 0.9 / 8 / 2 + 1e-6


def test_the_columns_losses_add_up_to_the_loss():
    w, a = correlated()
    rounded, own = gptq(w, a, 8.0, damp=0.0)
    assert own.sum() == pytest.approx(rounded.loss, rel=1e-6)
    error = w - rounded.values
    assert rounded.loss == pytest.approx(0.5 * float(torch.trace(error @ a @ error.mT)))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_loses_less_than_equal_widths_at_the_same_bits(bits):
    ratios = []
    for seed in range(3):
        w, a = correlated(seed)
        mixed = baq_columns(w, a, bits)
        assert bits - 0.1 < mixed.bits <= bits, "the list of widths is counted"
        ratios.append(mixed.loss / gptq(w, a, 2.0**bits)[0].loss)
    assert np.mean(ratios) < 0.85


def test_dead_inputs_do_not_hurt():
    w, a = correlated()
    a[5], a[:, 5] = 0, 0
    assert torch.isfinite(baq_columns(w, a, 3).values).all()


@pytest.fixture
def menu():
    rng = np.random.default_rng(0)
    size = np.full(12, 4096.0)
    units = tuple(Unit(f"u{i}", "linear", (Matrix(f"u{i}.weight", 64, 64, "x"),)) for i in range(12))
    bits = np.arange(1, 9)
    cost = size[:, None] * bits / 8
    c = np.exp(rng.normal(0, 1.5, (12, 1)))
    edits = (*(parse(f"int(bits={b}, group=64)") for b in range(2, 9)), parse("keep()"))
    return Menu(units, edits, {"payload": cost, "bytes": cost}, c * 4.0**-bits, 0 * cost, {}, int(size.sum())), c[:, 0]


def test_between_units_it_is_the_closed_form_put_on_the_menu(menu):
    menu, c = menu
    plan = baq(menu, Budget.parse("4 bits/weight"))
    got = np.array([menu.edits.index(plan.edits[unit.name]) + 1 for unit in menu.units])
    ideal = closed_form(c, 4.0)
    shift = got - ideal  # one level for all, then down to the next width
    assert np.ptp(shift) < 1
    assert plan.spent["bits_per_weight"] <= 4 < plan.spent["bits_per_weight"] + 2 / 12


def test_between_units_it_comes_near_the_general_allocator_on_its_own_curves(menu):
    menu, _ = menu
    for bits in (3, 4, 5.5):
        budget = Budget.parse(f"{bits} bits/weight")
        mine, best = baq(menu, budget), allocate.find("exact")(menu, budget)
        assert best.damage <= mine.damage <= 1.5 * best.damage
        assert mine.bound <= best.damage
