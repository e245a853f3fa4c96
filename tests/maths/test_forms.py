"""Forms: matrices that are written as a whole go through the same doors as those that lie on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.maths.forms import is_form
from secateur.maths.grids import Coded
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import damage
from secateur.maths.settle import Settled, Task, settle_all
from secateur.model.factors import Factors
from secateur.parts.damage import kronecker
from secateur.parts.edits.int import Int
from secateur.types import Matrix, Unit


@dataclass(frozen=True)
class First:
    """The first columns of a matrix, and zeros: about the simplest form there is."""

    cols: int

    def settle(self, w: Tensor, a: Tensor, g: Tensor | None, sides: int) -> Settled:
        values = w.clone()
        values[:, self.cols :] = 0
        return Settled(values, self, float(damage(w - values, a, g)))

    def code(self, values: Tensor) -> Coded:
        return Coded(values, {"values": values[:, : self.cols]})

    def losses(self, w, a, g, forms):
        return [form.settle(w, a, g, 2).damage for form in forms]


@dataclass(frozen=True)
class Columns:
    """The edit that has this form."""

    cols: int

    def grid(self, dtype: str = "float16") -> First:
        return First(self.cols)

    def cost(self, unit):
        return {}


def problem(rows=16, cols=32):
    torch.manual_seed(0)
    x, g = torch.randn(400, cols), torch.randn(400, rows)
    return torch.randn(rows, cols), x.T @ x / 400, g.T @ g / 400


def test_forms_and_grids_are_settled_in_one_call_and_come_back_in_order():
    w, a, g = problem()
    form, grid = Task(w, First(20), a, g), Task(w, Affine(4, 16), a, g)
    done = settle_all([form, grid, form])
    assert torch.equal(done[0].values, done[2].values) and not done[0].values[:, 20:].any()
    assert torch.equal(done[1].values, settle_all([grid])[0].values)
    assert done[0].grid.code(done[0].values).tensors["values"].shape == (16, 20)
    assert not is_form(grid.grid) and is_form(form.grid)


def test_bad_rows_are_zeros_to_a_form_and_named():
    w, a, g = problem()
    w[3, 5] = torch.nan
    (done,) = settle_all([Task(w, First(20), a, g)])
    assert done.bad_rows == (3,) and not done.values[3].any() and torch.isfinite(done.values).all()


def test_a_menu_takes_the_damage_that_a_form_expects_of_itself():
    w, a, g = problem()
    unit = Unit("u", "linear", (Matrix("u", 16, 32, "u"),), 0)
    offered = [Int(4, 16), Columns(20), None, Columns(31)]
    plain = kronecker.rows([unit], {"u": offered[:1]}, {"u": w}, {"u": Factors(a, g, 400)}, "float16")["u"]
    row = kronecker.rows([unit], {"u": offered}, {"u": w}, {"u": Factors(a, g, 400)}, "float16")["u"]
    assert np.allclose(row.damage[0], plain.damage[0])
    for at in (1, 3):
        assert np.isclose(row.damage[at], First(offered[at].cols).settle(w, a, g, 2).damage)
    assert row.damage[3] < row.damage[1] and row.error[1] > 0
    assert row.probes.keys() == plain.probes.keys()
