"""Settling a matrix: what is returned is on the grid, never worse than the first sweep, and bad rows stand aside."""

import pytest
import torch

from secateur.maths.factor import damped
from secateur.maths.grids.affine import Affine
from secateur.maths.grids.floats import Float
from secateur.maths.grids.scalars import Scalars
from secateur.maths.rounding import damage, nearest
from secateur.maths.settle import STRONG, Effort, Metric, row_pieces, settle, widened

FP8 = torch.float8_e4m3fn
GRIDS = [
    Affine(1, 16, False, FP8, FP8),
    Affine(2, 16),
    Affine(2, 16, False),
    Affine(2, 32, False, FP8, FP8),
    Affine(3, 32),
    Affine(4, 0),
    Affine(6, 32),
    Float("fp8"),
    Float("mxfp4"),
    Float("nvfp4"),
    Scalars("q4_1"),
    Scalars("iq4_nl"),
]


def case(rows=24, cols=64, seed=0):
    """Weights, and the statistics of few tokens with a large common part."""
    random = torch.Generator().manual_seed(seed)

    def gram(n):
        x = torch.randn(2 * n, n, generator=random) + 0.7 * torch.randn(2 * n, 1, generator=random)
        return x.T @ x / len(x)

    return 0.05 * torch.randn(rows, cols, generator=random), gram(cols), gram(rows)


def sides_of(g):
    return {"two": g, "diagonal": g.diagonal(), "none": None}


@pytest.mark.parametrize("side", ["two", "diagonal", "none"])
@pytest.mark.parametrize("kind", GRIDS, ids=str)
def test_on_the_grid_and_never_worse_than_one_sweep(kind, side):
    w, a, g = case()
    g = sides_of(g)[side]
    first = Metric.of(a, g)
    swept = first.sweep(w, kind.fit(w, a.diagonal()))
    done = settle(w, kind, a, g)
    assert done.damage == pytest.approx(float(first.damage(w - done.values)), rel=1e-4)
    assert done.damage <= float(first.damage(w - swept)) * (1 + 1e-5)
    assert torch.equal(done.grid.code(done.values).values, done.values)
    assert torch.equal(nearest(done.values, done.grid), done.values)
    assert done.bad_rows == ()


@pytest.mark.parametrize("kind", GRIDS, ids=str)
def test_no_sides_are_the_nearest(kind):
    w, a, g = case()
    done = settle(w, kind, a, g, sides=0)
    assert torch.equal(done.values, nearest(w, kind.fit(w, a.diagonal())))


def test_one_side_rounds_each_row_alone():
    w, a, g = case()
    effort = Effort()  # widths and refits choose for all rows at once
    whole = settle(w, Affine(3, 32), a, g, effort, sides=1)
    half = settle(w[:7], Affine(3, 32), a, None, effort)
    assert torch.equal(whole.values[:7], half.values)


def test_effort_is_never_wasted():
    w, a, g = case()
    little = settle(w, Affine(2, 32), a, g, Effort())
    wider = settle(w, Affine(2, 32), a, g, Effort((1.0, 1.15, 1.3)))
    more = settle(w, Affine(2, 32), a, g, Effort((1.0, 1.15, 1.3), True, 3))
    assert more.damage < wider.damage <= little.damage
    assert Effort.for_bits(2) == Effort((1.0, 1.15, 1.3), True, 3)


def test_the_strong_damping_rounds_and_the_usual_one_judges():
    w, a, g = case()
    usual, strong = Metric.of(a, g), Metric.of(a, g, STRONG)
    fit = Affine(2, 32).fit(w, a.diagonal())
    best = min(float(usual.damage(w - metric.sweep(w, fit))) for metric in (usual, strong))
    assert settle(w, Affine(2, 32), a, g, Effort(strong=True)).damage == pytest.approx(best)


def test_the_metric_is_the_damped_one():
    _, a, g = case()
    metric = Metric.of(a, g, 0.02)
    torch.testing.assert_close(metric.a, damped(a.double(), 0.02).float())
    torch.testing.assert_close(metric.g, damped(g.double(), 0.02).float())
    e = torch.randn(24, 64, generator=torch.Generator().manual_seed(5))
    assert float(metric.damage(e)) == pytest.approx(float(damage(e, metric.a, metric.g)))
    assert Metric.of(a, g.diagonal()).v is None and Metric.of(a, None).g is None


def test_each_factor_is_damped_as_far_as_its_own_triangle_needs():
    _, a, g = case()
    # as bad rounding would leave it: below zero by a twentieth of the diagonal
    g = g - (torch.linalg.eigvalsh(g)[0] + 0.05 * g.diagonal().mean()) * torch.eye(24)
    metric = Metric.of(a, g, 0.01)
    assert metric.damp == 0.01
    torch.testing.assert_close(metric.g, damped(g.double(), 0.1).float())


@pytest.mark.parametrize("kind", GRIDS, ids=str)
@pytest.mark.parametrize("sides", [0, 1, 2])
def test_bad_rows_are_named_and_zeros_and_touch_nobody(kind, sides):
    w, a, g = case()
    w[3, 5], w[20, 0] = float("nan"), float("-inf")
    good = [i for i in range(24) if i not in (3, 20)]
    done = settle(w, kind, a, g, sides=sides)
    assert done.bad_rows == (3, 20)
    assert not done.values[[3, 20]].any()
    assert torch.isfinite(done.values).all()
    assert torch.equal(done.grid.code(done.values).values, done.values)
    alone = settle(w[good], kind, a, g[good][:, good], sides=sides)
    assert torch.equal(done.values[good], alone.values)
    assert done.damage == alone.damage


def test_nothing_but_bad_rows():
    _, a, g = case()
    done = settle(torch.full((24, 64), float("nan")), Float("nvfp4"), a, g)
    assert done.bad_rows == tuple(range(24))
    assert done.damage == 0.0 and not done.values.any()


@pytest.mark.parametrize("kind", [Affine(2, 16), Affine(2, 16, False, FP8, FP8), Float("nvfp4")], ids=str)
def test_dead_inputs_and_outputs_are_rounded_like_any(kind):
    w, a, g = case()
    a[:20], a[:, :20] = 0.0, 0.0
    g[5], g[:, 5] = 0.0, 0.0
    done = settle(w, kind, a, g)
    assert torch.isfinite(done.values).all()
    assert torch.equal(done.grid.code(done.values).values, done.values)
    assert float((w - done.values).abs().max()) < 0.3  # nothing was pushed where nobody looks


def test_nothing_ever_came_through():
    w, a, g = case()
    done = settle(w, Affine(2, 16), 0 * a, 0 * g)
    assert torch.isfinite(done.values).all()
    assert done.damage == 0.0
    assert torch.equal(done.grid.code(done.values).values, done.values)


def test_the_weights_are_left_as_they_are():
    w, a, g = case()
    before = w.clone(), a.clone(), g.clone()
    settle(w, Affine(2, 16, False), a, g)
    assert all(torch.equal(x, y) for x, y in zip((w, a, g), before, strict=True))


def test_half_precision_comes_in_float32_goes_out():
    w, a, g = case()
    done = settle(w.bfloat16(), Affine(4, 32), a, g)
    assert done.values.dtype == torch.float32


def test_widened_about_the_middle():
    w, a, _ = case()
    assert widened(grid := Affine(2, 16).fit(w), 1.0) is grid
    assert torch.equal(widened(grid, 1.25).scale, (grid.scale * 1.25).half().float())
    fit = Affine(2, 16, False, torch.float32, torch.float32).fit(w, a.diagonal())
    wide = widened(fit, 1.25)

    def middle(grid):
        return (grid.low + grid.high) / 2 * grid.scale - grid.zero * grid.scale

    torch.testing.assert_close(middle(wide), middle(fit), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Affine(2, 32, False, FP8, FP8), Float("mxfp4"), Scalars("q4_1")], ids=str)
@pytest.mark.parametrize("sides", [0, 1, 2])
def test_tall_matrices_go_some_rows_at_a_time_and_lose_nothing_by_it(kind, sides, monkeypatch):
    w, heard = torch.cat([case(cols=32, seed=seed)[0] for seed in range(109)]), torch.rand(2616)
    a = case(cols=32)[1]
    w[1500, 3] = torch.nan
    whole = settle(w, kind, a, heard, sides=sides)
    monkeypatch.setattr("secateur.maths.settle.MANY", 600 * 32)
    done = settle(w, kind, a, heard, sides=sides)
    assert done.grid.rows == (600, 600, 600, 600, 216)
    assert done.bad_rows == whole.bad_rows == (1500,)
    assert done.damage <= 1.01 * whole.damage
    error = (w - done.values).nan_to_num()
    error[1500] = 0
    assert done.damage == pytest.approx(float(damage(error, damped(a, 0.01), heard)), rel=1e-4)
    coded, one = done.grid.code(done.values), whole.grid.code(whole.values)
    assert torch.equal(coded.values, done.values)
    assert {k: (x.shape, x.dtype) for k, x in coded.tensors.items()} == {
        k: (x.shape, x.dtype) for k, x in one.tensors.items()
    }


def test_rows_that_hang_together_stay_together():
    w, g = torch.zeros(1 << 17, 32), torch.ones(1 << 17)
    assert len(row_pieces(w, Affine(4, 32), g)) == 4
    assert len(row_pieces(w, Float("nvfp4"), g)) == 1
    assert len(row_pieces(w, Affine(4, 32), g.expand(1, -1))) == 1  # a matrix: every row hears of every other
