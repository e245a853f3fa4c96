"""Error feedback: on paper, against the definition entry by entry, and what it leaves in the metric."""

from dataclasses import replace

import pytest
import torch

from secateur.maths import rounding
from secateur.maths.factor import damped, unit_upper
from secateur.maths.grids.affine import Affine, FittedAffine
from secateur.maths.grids.floats import Float
from secateur.maths.rounding import (
    Job,
    damage,
    feedback,
    feedback_side_by_side,
    feedback_two_sided,
    nearest,
    refit,
)

SIZES = [(70, 100), (33, 31), (1, 5), (5, 1), (32, 64), (1, 1)]


def whole(rows, cols, n=8.0, scale=1.0):
    """Whole numbers from -n to n - 1 times a scale, in float64."""
    spread = torch.full((rows, cols), scale, dtype=torch.float64)
    return FittedAffine(spread, None, -n, n - 1, cols, torch.float32)


def statistics(n, seed, share=0.6):
    """A Gram matrix with a large common direction, as real inputs have."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(3 * n + 8, n, generator=random, dtype=torch.float64)
    x += share * torch.randn(len(x), 1, generator=random, dtype=torch.float64)
    return x.T @ x / len(x)


def case(rows, cols, seed=0, scale=0.3):
    """Weights, both statistics, their factors and a grid, in float64 so that sums in any order round alike."""
    w = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a, g = damped(statistics(cols, seed + 1), 0.01), damped(statistics(rows, seed + 2), 0.01)
    return w, a, g, unit_upper(a, 0.0)[0], unit_upper(g, 0.0)[0], whole(rows, cols, scale=scale)


def entry_by_entry(w, grid, u, v):
    """The definition: entry (i, j) is rounded when all above and to the left are; the values, and what each missed."""
    rows, cols = w.shape
    q, e, f, local = (torch.zeros_like(w) for _ in range(4))
    for i in range(rows):
        for j in range(cols):
            c = v[:i, i] @ e[:i, j]
            x = w[i, j] + c + f[i, :j] @ u[:j, j]
            zero = None if grid.zero is None else grid.zero[i, j]
            q[i, j] = grid.snap(x.clone(), grid.scale[i, j], zero)
            e[i, j] = w[i, j] - q[i, j]
            f[i, j] = e[i, j] + c
            local[i, j] = x - q[i, j]
    return q, local


def test_two_sides_on_paper():
    # row 0: 0.4 -> 0 (misses 0.4); 0.4 + 0.5 * 0.4 -> 1 (misses -0.6); 0.4 - 0.6 -> 0 (misses 0.4)
    # row 1 starts from 0.4 + 0.5 * those misses = 0.6, 0.1, 0.6
    #   0.6 -> 1: f = -0.6 + 0.2; 0.1 - 0.5 * 0.4 -> 0: f = 0.4 - 0.3; 0.6 + 0.1 -> 1
    w = torch.full((2, 3), 0.4, dtype=torch.float64)
    u = torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    v = torch.tensor([[0.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    grid = whole(2, 3)
    assert nearest(w, grid).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert feedback(w, grid, u).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert feedback_two_sided(w, grid, u, v).tolist() == [[0, 1, 0], [1, 0, 1]]


def test_damage_on_paper():
    e = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    a, g = torch.tensor([[1.0, 0.5], [0.5, 2.0]]), torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    # E A E' = [11 13.5; 13.5 18]: 1/2 tr takes its diagonal, a diagonal G weighs that, a full one takes all of it
    assert float(damage(e, a)) == 14.5
    assert float(damage(e, a, g.diagonal())) == (2 * 11 + 3 * 18) / 2
    assert float(damage(e, a, g)) == (2 * 11 + 2 * 13.5 + 3 * 18) / 2
    assert damage(torch.stack([e, 2 * e]), a, g).tolist() == [51.5, 206.0]


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_two_sides_as_defined(rows, cols):
    w, _, _, u, v, grid = case(rows, cols)
    assert torch.equal(feedback_two_sided(w, grid, u, v), entry_by_entry(w, grid, u, v)[0])


@pytest.mark.parametrize(("symmetric", "zeros"), [(True, None), (False, None), (False, torch.float8_e4m3fn)])
def test_two_sides_as_defined_on_fitted_grids(symmetric, zeros):
    w, a, _, u, v, _ = case(40, 48)
    fit = Affine(2, 16, symmetric, zeros=zeros).fit(w.float(), a.diagonal().float())
    grid = replace(fit, scale=fit.scale.double(), zero=None if fit.zero is None else fit.zero.double())
    assert torch.equal(feedback_two_sided(w, grid, u, v), entry_by_entry(w, grid, u, v)[0])


@pytest.mark.parametrize("cols", [1, 5, 128, 300])
def test_one_side_as_defined(cols):
    w, _, _, u, _, grid = case(3, cols)
    none = torch.zeros(3, 3, dtype=torch.float64)
    assert torch.equal(feedback(w, grid, u), entry_by_entry(w, grid, u, none)[0])


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_one_side_is_the_case_of_an_identity(rows, cols):
    w, _, _, u, _, grid = case(rows, cols)
    v = unit_upper(torch.eye(rows), 0.0)[0]
    assert torch.equal(feedback_two_sided(w, grid, u, v), feedback(w, grid, u))


def test_no_side_is_the_nearest():
    w, _, _, u, v, grid = case(33, 40)
    assert torch.equal(feedback_two_sided(w, grid, 0 * u, 0 * v), nearest(w, grid))
    assert torch.equal(feedback(w, grid, 0 * u), nearest(w, grid))


def test_two_sides_are_two_sides():
    # rows and columns change places with G and A
    w, _, _, u, v, grid = case(45, 37)
    turned = feedback_two_sided(w.T.contiguous(), whole(37, 45, scale=0.3), v, u)
    assert torch.equal(turned.T, feedback_two_sided(w, grid, u, v))


def test_side_by_side_is_one_by_one():
    jobs = []
    for at, (rows, cols) in enumerate([(35, 64), (64, 32), (96, 64), (31, 160)]):
        _, a, _, u, v, _ = case(rows, cols)
        w = torch.randn(rows, cols, generator=torch.Generator().manual_seed(at))
        kinds = [
            *(Affine(2, 32), Affine(4, 0), Affine(8, 32), Affine(3, 32, False)),
            *(Affine(1, 32, False, zeros=torch.float8_e4m3fn), Float("fp8"), Float("nvfp4")),
        ]
        jobs += [Job(w, kind.fit(w, a.diagonal().float()), u.float(), v.float()) for kind in kinds]
    together = feedback_side_by_side(jobs)
    for job, values in zip(jobs, together, strict=True):
        assert torch.equal(values, feedback_two_sided(job.w, job.grid, job.u, job.v))


def test_side_by_side_keeps_to_its_share_of_memory(monkeypatch):
    _, _, _, u, v, _ = case(64, 64)
    w = torch.randn(64, 64)
    job = Job(w, Affine(3, 32).fit(w), u.float(), v.float())
    monkeypatch.setattr(rounding, "TOGETHER", 2 * w.numel())
    sizes = [len(group) for group in rounding._groups([job] * 5)]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(("rows", "cols"), [(70, 100), (33, 31)])
def test_what_is_left_is_what_each_rounding_missed(rows, cols):
    w, a, g, u, v, grid = case(rows, cols)
    values, local = entry_by_entry(w, grid, u, v)
    e = w - values
    residual = (torch.eye(rows) + v).T @ e @ (torch.eye(cols) + u)
    torch.testing.assert_close(residual, local, rtol=0, atol=1e-12)
    d, dg = unit_upper(a, 0.0)[1], unit_upper(g, 0.0)[1]
    torch.testing.assert_close(2 * damage(e, a, g), (dg[:, None] * d * local**2).sum())


def test_on_a_fine_grid_nothing_misses_by_more_than_half_a_step():
    w, _, _, u, v, _ = case(70, 100)
    grid = whole(70, 100, n=10000.0, scale=0.01)
    e = w - feedback_two_sided(w, grid, u, v)
    residual = (torch.eye(70) + v).T @ e @ (torch.eye(100) + u)
    assert float(residual.abs().max()) <= 0.005 * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_each_side_pays_on_a_grid_without_ends(seed):
    w, a, g, u, v, _ = case(64, 96, seed)
    grid = whole(64, 96, n=10000.0, scale=0.5)
    plain = damage(w - nearest(w, grid), a, g)
    one = damage(w - feedback(w, grid, u), a, g)
    two = damage(w - feedback_two_sided(w, grid, u, v), a, g)
    # what is expected: step^2 / 24 on every pivot, against the whole diagonals where nothing is fed back
    expected = 0.25 / 24 * unit_upper(a, 0.0)[1].sum() * unit_upper(g, 0.0)[1].sum()
    assert float(two) == pytest.approx(float(expected), rel=0.1)
    assert two < 0.9 * one and one < 0.9 * plain


def test_float_grids_are_fed_back_too():
    w, a, g, u, v, _ = case(32, 64)
    for grid in (Float("fp8").fit(w), Float("mxfp4").fit(w), Float("nvfp4").fit(w)):
        values = feedback_two_sided(w.float(), grid, u.float(), v.float())
        assert torch.equal(nearest(values, grid), values)
        assert damage(w - values, a, g) < damage(w - nearest(w.float(), grid), a, g)


# scales refitted


def test_refit_on_paper():
    # codes 1 1 2 for 1 2 3: the scale is (1 + 2 + 6) / (1 + 1 + 4)
    w = torch.tensor([[1.0, 2.0, 3.0]])
    grid = FittedAffine(torch.ones(1, 3), None, -4, 3, 3, torch.float32)
    new = refit(w, torch.tensor([[1.0, 1.0, 2.0]]), grid, torch.eye(3), None)
    assert new.scale.tolist() == [[1.5, 1.5, 1.5]]


GRIDS = [
    Affine(2, 16),
    Affine(3, 0),
    Affine(2, 16, False),
    Affine(4, 32, False, torch.bfloat16),
    Affine(2, 16, False, zeros=torch.float16),
]


@pytest.mark.parametrize("kind", GRIDS, ids=str)
@pytest.mark.parametrize("sides", [1, 1.5, 2])
def test_refitted_scales_do_no_damage(kind, sides):
    w, a, g, u, _, _ = (x if isinstance(x, FittedAffine) else x.float() for x in case(24, 64))
    g = {1: None, 1.5: g.diagonal(), 2: g}[sides]
    grid = kind.fit(w, a.diagonal())
    values = feedback(w, grid, u)
    codes = grid.codes(values)
    before = damage(w - values, a, g)
    new = refit(w, values, grid, a, g)
    after = damage(w - (codes if new.zero is None else codes - new.zero) * new.scale, a, g)
    assert after <= before
    assert torch.equal(new.scale, new.scale.to(kind.dtype).float())


@pytest.mark.parametrize("zeros", [None, torch.float32])
def test_refit_finds_the_least_squares(zeros):
    w, a, g, u, _, _ = (x if isinstance(x, FittedAffine) else x.float() for x in case(6, 16))
    grid = Affine(3, 8, zeros is None, torch.float32, zeros).fit(w)
    values = feedback(w, grid, u)
    codes = grid.codes(values)
    columns = []  # what each parameter adds to the matrix
    for i in range(6):
        for group in (slice(0, 8), slice(8, 16)):
            for part in (codes, torch.ones_like(codes)) if zeros else (codes,):
                column = torch.zeros(6, 16, dtype=torch.float64)
                column[i, group] = part[i, group]
                columns.append(column)
    basis = torch.stack(columns).flatten(1)
    metric = torch.kron(g.double(), a.double())
    best = torch.linalg.solve(basis @ metric @ basis.T, basis @ metric @ w.double().flatten())
    new = refit(w, values, grid, a, g, steps=60)
    shift = 0 if new.zero is None else new.zero
    torch.testing.assert_close((codes - shift) * new.scale, (best @ basis).view(6, 16).float(), rtol=1e-3, atol=1e-4)


def test_refit_leaves_empty_groups_alone():
    w = torch.zeros(2, 16)
    w[:, 8:] = torch.linspace(-1, 1, 8)
    grid = Affine(2, 8).fit(w)
    new = refit(w, nearest(w, grid), grid, torch.eye(16), None)
    assert torch.equal(new.scale[:, :8], grid.scale[:, :8])
