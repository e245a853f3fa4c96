"""Error feedback over grids that code several columns together: on paper, and what it leaves in the metric."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from secateur.maths.factor import damped, unit_upper
from secateur.maths.grids.affine import Affine, FittedAffine
from secateur.maths.rounding import Job, damage, feedback, feedback_side_by_side, feedback_two_sided, nearest
from secateur.maths.settle import Metric


@dataclass(frozen=True)
class Book:
    """A codebook [entries, step] times a scale: the nearest entry for every cell, first come first."""

    scale: Tensor
    book: Tensor
    zero: None = None

    @property
    def step(self) -> int:
        return self.book.shape[1]

    def snap(self, x, scale, zero, weight=None):
        cells = (x / scale).unflatten(-1, (-1, self.step))
        miss = (cells.unsqueeze(-2) - self.book) ** 2
        weight = miss.new_ones(()) if weight is None else weight.unflatten(-1, (-1, 1, self.step))
        return self.book[(miss * weight).sum(-1).argmin(-1)].flatten(-2) * scale


def statistics(n, seed, share=0.6):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(3 * n + 8, n, generator=random, dtype=torch.float64)
    x += share * torch.randn(len(x), 1, generator=random, dtype=torch.float64)
    return damped(x.T @ x / len(x), 0.01)


def case(rows, cols, step, entries=24, seed=0):
    """Weights, both statistics, and a random codebook, in float64 so that sums in any order round alike."""
    random = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, cols, generator=random, dtype=torch.float64)
    book = 1.2 * torch.randn(entries, step, generator=random, dtype=torch.float64)
    scale = torch.full((rows, cols), 0.9, dtype=torch.float64)
    return w, statistics(cols, seed + 1), statistics(rows, seed + 2), Book(scale, book)


def cell_by_cell(w, grid, u, v, weight):
    """The definition: a cell is snapped when all above and to the left are; the values, and what each missed."""
    rows, cols = w.shape
    q, e, f, local = (torch.zeros_like(w) for _ in range(4))
    for i in range(rows):
        for j in range(0, cols, grid.step):
            cell = slice(j, j + grid.step)
            c = v[:i, i] @ e[:i, cell]
            x = w[i, cell] + c + f[i, :j] @ u[:j, cell]
            q[i, cell] = grid.snap(x, grid.scale[i, cell], None, weight[cell])
            e[i, cell] = w[i, cell] - q[i, cell]
            f[i, cell] = e[i, cell] + c
            local[i, cell] = x - q[i, cell]
    return q, local


def test_factor_by_cells_on_paper():
    # inside both cells there is [1 1; 0 1]: rows (1, 0) above the second become (1, 0) [1 -1; 0 1] = (1, -1), and the
    # blocks are [1 1; 0 1] diag(1, 4) [1 0; 1 1] = [5 4; 4 4] and [1 1; 0 1] diag(9, 16) [1 0; 1 1] = [25 16; 16 16]
    upper = torch.tensor([[1.0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]], dtype=torch.float64)
    d = torch.tensor([1.0, 4, 9, 16], dtype=torch.float64)
    u, blocks, _ = unit_upper(upper @ d.diag() @ upper.T, 0.0, step=2)
    assert u.tolist() == [[0, 0, 1, -1], [0, 0, 1, -1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert blocks.tolist() == [[[5, 4], [4, 4]], [[25, 16], [16, 16]]]


@pytest.mark.parametrize(("n", "step"), [(8, 8), (32, 4), (72, 8), (6, 2)])
def test_factor_by_cells_put_together_again(n, step):
    a = statistics(n, 3)
    u, blocks, _ = unit_upper(a, 0.0, step=step)
    upper = torch.eye(n, dtype=a.dtype) + u
    cells = u.view(n // step, step, n // step, step)
    for i in range(n // step):
        assert not cells[i:, :, i].any()
    torch.testing.assert_close(upper @ torch.block_diag(*blocks) @ upper.T, a, rtol=1e-12, atol=1e-12)


def test_columns_that_do_not_go_in_cells():
    with pytest.raises(ValueError, match="6 columns do not go in cells of 4"):
        unit_upper(statistics(6, 0), step=4)


def test_two_sides_on_paper():
    # entries (0, 0) and (1, 1); cells of the first row: (0.4, 0.4) -> 0 0, misses 0.4 0.4
    #   the second starts from 0.4 + 0.5 * 0.4 = 0.6 and 0.4 + 0.5 * 0.4 = 0.6 -> 1 1: errors -0.6
    # second row: from 0.4 + 0.5 * 0.4 = 0.6 -> 1 1, errors -0.6: f = -0.4; then 0.4 - 0.3 - 0.2 = -0.1 -> 0 0
    w = torch.full((2, 4), 0.4, dtype=torch.float64)
    book = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    grid = Book(torch.ones(2, 4, dtype=torch.float64), book)
    u = torch.zeros(4, 4, dtype=torch.float64)
    u[0, 2] = u[1, 3] = 0.5
    v = torch.tensor([[0.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    assert not nearest(w, grid).any()
    assert feedback(w, grid, u).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert feedback_two_sided(w, grid, u, v).tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


def test_the_parts_of_a_cell_are_weighed():
    # (0.4, 0.6) is as near to (0, 0) as to (1, 1); the heavier part decides
    grid = Book(torch.ones(1, 2), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    w, u, v = torch.tensor([[0.4, 0.6]]), torch.zeros(2, 2), torch.zeros(1, 1)
    for weight, value in ((torch.tensor([2.0, 1.0]), 0.0), (torch.tensor([1.0, 2.0]), 1.0)):
        for values in (
            nearest(w, grid, weight),
            feedback(w, grid, u, weight),
            feedback_two_sided(w, grid, u, v, weight),
        ):
            assert values.tolist() == [[value, value]]


@pytest.mark.parametrize(("rows", "cols", "step"), [(70, 96, 8), (33, 40, 4), (1, 8, 8), (5, 32, 2), (40, 264, 8)])
def test_as_defined_and_what_is_left_is_what_each_cell_missed(rows, cols, step):
    w, a, g, grid = case(rows, cols, step)
    (u, blocks, _), (v, dg, _) = unit_upper(a, 0.0, step=step), unit_upper(g, 0.0)
    weight = blocks.diagonal(dim1=1, dim2=2).flatten()
    values, local = cell_by_cell(w, grid, u, v, weight)
    assert torch.equal(feedback_two_sided(w, grid, u, v, weight), values)
    assert torch.equal(feedback(w, grid, u, weight), cell_by_cell(w, grid, u, torch.zeros_like(v), weight)[0])
    e, cells = w - values, local.view(rows, -1, step)
    residual = (torch.eye(rows) + v).T @ e @ (torch.eye(cols) + u)
    torch.testing.assert_close(residual, local, rtol=0, atol=1e-11)
    each = torch.einsum("icv,cvw,icw->ic", cells, blocks, cells)
    torch.testing.assert_close(2 * damage(e, a, g), (dg[:, None] * each).sum())


@pytest.mark.parametrize("step", [2, 8])
def test_one_side_is_the_case_of_an_identity(step):
    w, a, _, grid = case(45, 64, step)
    u, v = unit_upper(a, step=step)[0], unit_upper(torch.eye(45), 0.0)[0]
    assert torch.equal(feedback_two_sided(w, grid, u, v), feedback(w, grid, u))


def test_a_cell_of_one_is_a_scalar():
    """A codebook of whole numbers gives what integers give."""
    w, a, g, _ = case(40, 48, 4)
    scale = torch.full_like(w, 0.3)
    book, plain = (
        Book(scale, torch.arange(-8.0, 8)[:, None].double()),
        FittedAffine(scale, None, -8, 7, 48, torch.float32),
    )
    u, v = unit_upper(a)[0], unit_upper(g)[0]
    assert torch.equal(feedback(w, book, u), feedback(w, plain, u))
    assert torch.equal(feedback_two_sided(w, book, u, v), feedback_two_sided(w, plain, u, v))


@pytest.mark.parametrize("step", [4, 8])
def test_cells_may_hold_scalars_that_do_not_help_each_other(step):
    """Integers called cells: rounded one by one inside a cell, and all as defined."""

    @dataclass(frozen=True)
    class Integers(FittedAffine):
        def snap(self, x, scale, zero, weight=None):
            return super().snap(x, scale, zero)

    w, a, g, _ = case(40, 64, step)
    fits = [kind.fit(w.float(), a.diagonal()) for kind in (Affine(2, 32), Affine(2, 16))]
    grids = [Integers(fit.scale.double(), None, -2, 1, fit.group, torch.float32, step=step) for fit in fits]
    (u, blocks, _), v = unit_upper(a, 0.0, step=step), unit_upper(g, 0.0)[0]
    weight = blocks.diagonal(dim1=1, dim2=2).flatten()
    alone = [feedback_two_sided(w, grid, u, v, weight) for grid in grids]
    assert torch.equal(alone[0], cell_by_cell(w, grids[0], u, v, weight)[0])
    together = feedback_side_by_side([Job(w, grid, u, v, weight) for grid in grids])
    assert torch.equal(torch.stack(together), torch.stack(alone))


@pytest.mark.parametrize("seed", range(3))
def test_each_side_pays(seed):
    w, a, g, _ = case(64, 96, 4, seed=seed)
    book = torch.cartesian_prod(*[torch.arange(-6.0, 7) * 0.5] * 2).double()
    grid = Book(torch.ones_like(w), book)
    metric = Metric.of(a, g, 0.0, step=2)
    assert metric.v is not None and metric.weight is not None
    u, v, weight = metric.u.double(), metric.v.double(), metric.weight.double()
    plain = damage(w - nearest(w, grid, a.diagonal()), a, g)
    one = damage(w - feedback(w, grid, u, weight), a, g)
    two = damage(w - feedback_two_sided(w, grid, u, v, weight), a, g)
    assert two < 0.9 * one and one < 0.9 * plain
