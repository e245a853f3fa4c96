"""GPTQ: ours against the textbook loop to the last code; its laws; a two by three case on paper."""

from dataclasses import replace

import pytest
import torch

from secateur.maths.factor import unit_upper
from secateur.maths.grids.affine import Affine
from secateur.maths.grids.floats import Float
from secateur.maths.rounding import damage, feedback, nearest
from secateur.methods.quantize.gptq import GPTQ, gptq


def correlated(seed=0, rows=24, cols=96, tokens=300, spread=1.0):
    """Weights and the Gram matrix of correlated inputs whose sizes are spread log-normally, in float64."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(cols, cols, generator=rng, dtype=torch.float64) / cols**0.5 + torch.eye(cols)
    size = torch.exp(spread * torch.randn(cols, generator=rng, dtype=torch.float64))
    x = torch.randn(tokens, cols, generator=rng, dtype=torch.float64) @ mix * size
    return torch.randn(rows, cols, generator=rng, dtype=torch.float64), x.mT @ x / tokens


def textbook(w, fitted, a, damp=0.01):
    """The paper's algorithm 1 as its authors' code has it: the upper Cholesky factor of the inverse, moved weights."""
    h = a + damp * a.diagonal().mean() * torch.eye(len(a), dtype=a.dtype)
    r = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    w, q = w.clone(), torch.zeros_like(w)
    for j in range(w.shape[1]):
        zero = None if fitted.zero is None else fitted.zero[:, j]
        q[:, j] = fitted.snap(w[:, j], fitted.scale[:, j], zero)
        error = (w[:, j] - q[:, j]) / r[j, j]
        w[:, j:] -= error[:, None] * r[j, j:]
    return q


def doubled(fitted):
    return replace(fitted, scale=fitted.scale.double(), zero=None if fitted.zero is None else fitted.zero.double())


@pytest.mark.parametrize("damp", [0.01, 0.1])
@pytest.mark.parametrize(
    "grid",
    [
        Affine(2, 32),
        Affine(3, 0),
        Affine(4, 48),
        Affine(3, 32, symmetric=False),
        Affine(2, 32, False, zeros=torch.half),
    ],
    ids=repr,
)
@pytest.mark.parametrize("seed", range(3))
def test_one_factor_gives_the_codes_of_the_textbook(grid, damp, seed):
    # 160 columns cross our lazy block of 128
    w, a = correlated(seed, cols=96 if grid.group == 48 else 160)
    fitted = doubled(grid.fit(w.float(), a.diagonal()))
    u, _, used = unit_upper(a, damp)
    assert used == damp
    ours, theirs = feedback(w, fitted, u), textbook(w, fitted, a, damp)
    assert torch.equal(fitted.codes(ours), fitted.codes(theirs))
    assert not torch.equal(fitted.codes(ours), fitted.codes(nearest(w, fitted)))


def test_the_two_factors_are_inverse_to_each_other():
    _, a = correlated()
    u, d, _ = unit_upper(a, 0.01)
    h = a + 0.01 * a.diagonal().mean() * torch.eye(len(a))
    r = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    eye = torch.eye(len(a), dtype=torch.float64)
    torch.testing.assert_close(r, d.rsqrt()[:, None] * torch.linalg.inv(eye + u))


def test_the_method_is_that_loop():
    w, a = correlated(seed=5)
    coded = gptq(w, Affine(3, 32), a)
    fitted = Affine(3, 32).fit(w.float(), a.float().diagonal())
    theirs = textbook(w, doubled(fitted), a)
    # float32 against float64: a weight that lies between two numbers may go the other way
    assert (coded.values - theirs).ne(0).double().mean() < 0.01
    assert damage(w - coded.values.double(), a) == pytest.approx(float(damage(w - theirs, a)), rel=0.01)


def test_by_hand():
    # A = (I+U) D (I+U)' with D = I, U_12 = 0.5, U_23 = -1: errors move half up and one down
    i, u = torch.eye(3), torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    a = (i + u) @ (i + u).mT
    fitted = Affine(3, 0).fit(torch.zeros(2, 3)).rescaled(torch.ones(2, 1))
    w = torch.tensor([[0.4, 1.4, 2.0], [1.3, -0.9, 0.7]])
    # row 1: 0.4 -> 0, e = 0.4; 1.4 + 0.2 = 1.6 -> 2, e = -0.6; 2.0 + 0.6 = 2.6 -> 3
    # row 2: 1.3 -> 1, e = 0.3; -0.9 + 0.15 = -0.75 -> -1, e = 0.1; 0.7 - 0.1 = 0.6 -> 1
    assert feedback(w, fitted, unit_upper(a, 0.0)[0].float()).tolist() == [[0, 2, 3], [1, -1, 1]]


def test_white_inputs_leave_nothing_to_feed_back():
    w, _ = correlated()
    grid = Affine(3, 32)
    fitted = grid.fit(w.float(), torch.ones(96))
    assert torch.equal(gptq(w, grid, torch.eye(96)).values, nearest(w.float(), fitted))


@pytest.mark.parametrize(
    "grid", [Affine(2, 32), Affine(4, 0), Affine(3, 32, symmetric=False), Float("mxfp4")], ids=repr
)
@pytest.mark.parametrize("method", [GPTQ(), GPTQ(act_order=True)], ids=repr)
def test_it_loses_less_than_the_nearest_on_the_same_scales(grid, method):
    ratios = []
    for seed in range(4):
        w, a = correlated(seed)
        fitted = grid.fit(w.float(), a.diagonal())
        coded = method(w, grid, a)
        assert torch.equal(fitted.snap(coded.values, fitted.scale, fitted.zero), coded.values), "on the grid"
        error = w - nearest(w.float(), fitted).double()
        ratios.append(float(damage(w - coded.values.double(), a) / damage(error, a)))
    assert max(ratios) < 0.8


def test_the_order_changes_who_makes_up_and_not_whose_scale():
    w, a = correlated(spread=1.5)
    given, ordered = gptq(w, Affine(3, 32), a), GPTQ(act_order=True)(w, Affine(3, 32), a)
    assert torch.equal(given.tensors["scale"], ordered.tensors["scale"])
    assert not torch.equal(given.tensors["codes"], ordered.tensors["codes"])
    first = int(a.diagonal().argmax())
    fitted = Affine(3, 32).fit(w.float(), a.diagonal())
    torch.testing.assert_close(ordered.values[:, first], nearest(w.float(), fitted)[:, first])


def test_dead_and_repeated_inputs_do_not_hurt():
    w, a = correlated()
    a[7], a[:, 7] = 0, 0
    a[3], a[:, 3] = a[4], a[:, 4]
    a[3, 3] = a[4, 4]
    coded = gptq(w, Affine(3, 32), a)
    assert torch.isfinite(coded.values).all()
    assert damage(w - coded.values.double(), a) < 0.2 * damage(w, a)
