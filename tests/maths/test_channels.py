"""Which columns go: by hand, against every subset, and the refit against least squares on the data themselves."""

from __future__ import annotations

import itertools

import pytest
import torch

from secateur.maths.channels import Moments, greedy, refitted, swift


def drawn(rows=4, cols=6, n=400):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, cols, generator=draw) @ torch.randn(cols, cols, generator=draw) + 1.0
    return torch.randn(rows, cols, generator=draw), x


def spread(n, seed):
    """A random second moment with some correlation."""
    x = torch.randn(3 * n, n, generator=torch.Generator().manual_seed(seed))
    return (x.mT @ x / len(x) + 0.3 * x[:n].mean() + torch.eye(n) * 0.1).double()


def test_by_hand():
    """Two inputs that are the same: the one that goes first costs nothing, for the other takes its place."""
    a = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) + 1e-9 * torch.eye(3)
    found = greedy(torch.tensor([[1.0, 1.0, 3.0]]), a, damp=1e-9)
    assert found.order.tolist() == [0, 1, 2]
    assert found.damage.tolist() == pytest.approx([0.0, 0.5 * 4, 0.5 * (4 + 9)], abs=1e-6)
    assert found.kept(1).tolist() == [2] and found.left(3) == 0 and found.left(1) == pytest.approx(2.0)


@pytest.mark.parametrize("metric", ["identity", "diagonal", "full"])
def test_the_damage_is_that_of_the_refitted_matrix(metric):
    w, x = drawn()
    a = (x.T @ x / len(x)).double()
    draw = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double()
    full = {"identity": torch.eye(4), "diagonal": torch.diag(draw.diag().abs()), "full": draw @ draw.T}[metric].double()
    given = {"identity": None, "diagonal": full.diagonal(), "full": full}[metric]
    found = greedy(w, a, given, group=2, damp=0.0)
    for n in (1, 2):
        kept = torch.cat([torch.arange(2 * i, 2 * i + 2) for i in found.kept(n).tolist()])
        refitted = torch.zeros_like(w).double()
        refitted[:, kept] = w.double() @ a[:, kept] @ torch.linalg.inv(a[kept][:, kept])
        error = w - refitted
        assert found.left(n) == pytest.approx(float(0.5 * (full @ error @ a @ error.T).trace()), rel=1e-6)


def test_the_first_to_go_is_the_best_of_all():
    w, x = drawn()
    a = (x.T @ x / len(x)).double()
    costs = []
    for gone in range(6):
        kept = torch.tensor([i for i in range(6) if i != gone])
        error = w.double().clone()
        error[:, kept] -= w.double() @ a[:, kept] @ torch.linalg.inv(a[kept][:, kept])
        costs.append(float((error @ a @ error.T).trace()))
    assert int(greedy(w, a, damp=0.0).order[0]) == min(range(6), key=costs.__getitem__)


def test_refit_is_least_squares_with_an_intercept_and_halves_add_up():
    w, x = drawn()
    y = x @ w.T + 2.0
    halves = [Moments.empty(4, 6) for _ in range(2)]
    for half, rows in zip(halves, (slice(0, 150), slice(150, None)), strict=True):
        half.update(x[rows], y[rows])
    columns = torch.tensor([0, 2, 5])
    found, shift = (halves[0] + halves[1]).refit(columns, damp=0.0)
    design = torch.cat((x[:, columns], torch.ones(len(x), 1)), 1).double()
    truth = torch.linalg.lstsq(design, y.double()).solution.T
    assert torch.allclose(found.double(), truth[:, :3], atol=1e-3) and torch.allclose(
        shift.double(), truth[:, 3], atol=1e-3
    )


def test_greedy_is_near_the_best_subset():
    """No promise, but on random data it must not be far off: of 15 ways to keep four of six."""
    w, x = drawn()
    a = (x.T @ x / len(x)).double()

    def cost(kept):
        kept = torch.tensor(kept)
        error = w.double().clone()
        error[:, kept] -= w.double() @ a[:, kept] @ torch.linalg.inv(a[kept][:, kept])
        return float(0.5 * (error @ a @ error.T).trace())

    best = min(cost(kept) for kept in itertools.combinations(range(6), 4))
    assert best * (1 - 1e-6) <= greedy(w, a, damp=0.0).left(4) <= 2 * best


def test_a_share_at_a_time_is_nearly_one_at_a_time():
    w, a, g = drawn(5, 96)[0], spread(96, 1), spread(5, 2)
    one, many = greedy(w, a, g), swift(w, a, g, share=1 / 32)
    assert sorted(many.order.tolist()) == list(range(96))
    assert (many.damage.diff() >= -1e-9).all() and float(many.damage[-1]) == pytest.approx(float(one.damage[-1]))
    for n in (24, 48, 72):
        assert many.left(n) == pytest.approx(one.left(n), rel=0.1)
    assert swift(w, a, g, share=0.0).order.tolist() == one.order.tolist()


def test_heads_go_whole():
    w, a = drawn(5, 12)[0], spread(12, 1)
    assert swift(w, a, group=4, share=0.0).order.tolist() == greedy(w, a, group=4).order.tolist()


def test_what_is_refitted_loses_what_was_told():
    """1/2 tr(G E A E') of the refitted matrix is the damage of the removal."""
    w, a, g = drawn(5, 24)[0], spread(24, 1), spread(5, 2)
    found = swift(w, a, g, damp=0.0)
    some = found.kept(10)
    error = w.clone().double()
    error[:, some] -= refitted(w, a, some, damp=0.0).double()
    assert 0.5 * float(torch.trace(g.double() @ error @ a.double() @ error.T)) == pytest.approx(
        found.left(10), rel=1e-4
    )
