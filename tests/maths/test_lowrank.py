"""Low rank: the best there is by brute force, ranks that are nested, damages known before anything is cut."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from secateur.maths.forms import is_form
from secateur.maths.grids.affine import Affine
from secateur.maths.lowrank import LowRank, Sides, decompose, rank
from secateur.maths.settle import Metric, settle


def problem(rows=24, cols=40, seed=0, diagonal=False):
    random = torch.Generator().manual_seed(seed)
    x = (
        torch.randn(300, cols, generator=random)
        @ torch.randn(cols, cols, generator=random)
        * torch.logspace(0, 1, cols)
    )
    y = torch.randn(300, rows, generator=random) * torch.logspace(-1, 0, rows)
    g = y.T @ y / 300
    return torch.randn(rows, cols, generator=random), x.T @ x / 300, g.diagonal().clone() if diagonal else g


def test_by_hand():
    """Two outputs, of which one is heard ten times as loudly: rank one keeps it, though its weights are smaller."""
    w, a, g = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.eye(2), torch.diag(torch.tensor([1.0, 100.0]))
    best = decompose(w, Sides(a.double(), g.double()))
    assert best.energy.tolist() == pytest.approx([100.0, 4.0])
    assert (best.left[:, :1] @ best.right[:1]).flatten().tolist() == pytest.approx([0, 0, 0, 1])
    assert best.damage(1) == pytest.approx(2.0)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (30, 30)])
@pytest.mark.parametrize("diagonal", [False, True])
def test_the_tail_is_the_damage_and_no_other_factors_do_better(shape, diagonal):
    w, a, g = problem(*shape, diagonal=diagonal)
    sides = Sides.of(a, g)
    best = decompose(w, sides)
    random = torch.Generator().manual_seed(1)
    for k in (1, 5, 17):
        left, right = best.left[:, :k], best.right[:k]
        assert sides.damage(w.double() - left @ right) == pytest.approx(best.damage(k), rel=1e-6)
        # from anywhere, by the best left factor for the right one and the other way round: never below
        tried = torch.randn(k, shape[1], generator=random, dtype=torch.float64)
        for _ in range(60):
            there = sides.fitted_left(w.double(), tried)
            tried = sides.fitted_right(w.double(), there)
        found = sides.damage(w.double() - there @ tried)
        assert best.damage(k) * (1 - 1e-9) <= found <= best.damage(k) * 1.2


def test_ranks_are_nested_and_no_other_choice_of_components_is_as_good():
    w, a, g = problem(6, 8)
    sides = Sides.of(a, g)
    best = decompose(w, sides)
    losses = [best.damage(k) for k in range(7)]
    assert losses == sorted(losses, reverse=True) and losses[-1] == pytest.approx(0, abs=1e-9)
    for some in combinations(range(6), 3):
        chosen = best.left[:, some] @ best.right[list(some)]
        assert sides.damage(w.double() - chosen) >= losses[3] * (1 - 1e-9)


def test_identity_metric_is_the_plain_svd():
    w, _, _ = problem()
    best = decompose(w, Sides.of(torch.eye(40), None, 0.0))
    assert torch.allclose(best.energy.sqrt(), torch.linalg.svdvals(w.double()), rtol=1e-6)


def test_the_form_does_what_it_predicted_to_the_rounding_of_half_precision():
    w, a, g = problem()
    forms = [LowRank(keep) for keep in (0.8, 0.5, 0.2)]
    assert all(map(is_form, forms))
    for form, said in zip(forms, forms[0].losses(w, a, g, forms), strict=True):
        done = form.settle(w, a, g, 2)
        assert done.damage == pytest.approx(said, rel=1e-3)
        assert float(Metric.of(a, g).damage(w - done.values)) == pytest.approx(done.damage, rel=1e-3)
        k = rank(form.keep, *w.shape)
        assert torch.linalg.matrix_rank(done.values.double(), rtol=1e-6) == k
        held = done.grid.code(done.values).tensors
        assert held["left"].shape == (k, 24) and held["right"].shape == (k, 40)
        assert held["left"].dtype == held["right"].dtype == torch.float16


@pytest.mark.parametrize("diagonal", [False, True])
def test_factors_on_a_grid_lose_what_was_expected_and_less_than_factors_rounded_plainly(diagonal):
    w, a, g = problem(64, 96, diagonal=diagonal)
    form = LowRank(0.5, Affine(4, 32))
    (said,) = form.losses(w, a, g, [form])
    done = form.settle(w, a, g, 2)
    assert said == pytest.approx(done.damage, rel=0.25)
    best, k, sides = decompose(w, Sides.of(a, g)), rank(0.5, 64, 96), Sides.of(a, g)
    plain = [
        settle(x, Affine(4, 32), torch.eye(x.shape[1]), None, sides=0).values.double()
        for x in (best.left[:, :k].mT.float(), best.right[:k].float())
    ]
    assert best.damage(k) < done.damage < sides.damage(w.double() - plain[0].mT @ plain[1])


def test_fewer_sides_know_less_and_do_no_better():
    w, a, g = problem(64, 96)
    both, one, none = (LowRank(0.4).settle(w, a, g, sides).damage for sides in (2, 1, 0))
    assert both < one < none


@pytest.mark.parametrize("inner", [None, Affine(4, 8)])
def test_nothing_and_nearly_nothing(inner):
    """No weights at all, and inputs that never come: zeros, and numbers that are finite."""
    a = torch.zeros(40, 40)
    a[0, 0] = 1.0
    for w in (torch.zeros(24, 40), problem()[0]):
        done = LowRank(0.5, inner).settle(w, a, torch.zeros(24, 24), 2)
        assert torch.isfinite(done.values).all()
    assert LowRank(0.5, inner).losses(torch.zeros(24, 40), a, None, [LowRank(0.5, inner)]) == [0.0]


def test_probes_are_the_best_matrices_of_their_ranks_and_damage_what_they_say():
    w, a, g = problem()
    losses, probes = LowRank(0.45).losses_and_probes(w, a, g, [LowRank(0.75), LowRank(0.45)])
    assert sorted(probes) == [345, 375], "none of less than was asked for"
    for loss, keep in zip(losses, (0.75, 0.45), strict=True):
        said, values = probes[LowRank(keep).level]
        assert said == pytest.approx(loss) == pytest.approx(Sides.of(a, g).damage(w.double() - values))
        assert torch.linalg.matrix_rank(values) == rank(keep, *w.shape)
