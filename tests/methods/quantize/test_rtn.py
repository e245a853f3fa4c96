"""RTN by its defining properties: the nearest number, once and for all, and no data."""

import itertools

import pytest
import torch

from secateur.maths.grids.affine import Affine
from secateur.maths.grids.floats import Float
from secateur.methods.quantize.rtn import rtn

GRIDS = [Affine(b, 32) for b in (2, 3, 4, 8)] + [Affine(4, 0), Affine(3, 32, symmetric=False), Float("mxfp4")]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    w = torch.tensor([[-2.0, -0.9, 0.2, 1.1], [4.0, 2.1, -0.1, -1.9]])
    coded = rtn(w, Affine(bits=2, group=4))
    assert coded.values.tolist() == [[-2.0, -1.0, 0.0, 1.0], [4.0, 2.0, 0.0, -2.0]]
    assert coded.tensors["codes"].tolist() == [[-2, -1, 0, 1], [-2, -1, 0, 1]]
    assert coded.tensors["scale"].tolist() == [[1.0], [-2.0]], "the long side lies where the weights need it"


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_no_other_number_of_the_grid_is_nearer(grid):
    w = draw(8, 64)
    coded, fitted = rtn(w, grid), grid.fit(w)
    if isinstance(grid, Affine):
        zero = 0 if fitted.zero is None else fitted.zero
        numbers = [(code - zero) * fitted.scale for code in range(int(fitted.low), int(fitted.high) + 1)]
    else:
        numbers = [sign * level * fitted.scale for sign in (1, -1) for level in (0, 0.5, 1, 1.5, 2, 3, 4, 6)]
    best = torch.stack([(number - w).abs() for number in numbers]).amin(0)
    torch.testing.assert_close((coded.values - w).abs(), best)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_rounding_what_is_rounded_changes_nothing(grid):
    w = rtn(draw(8, 64), grid).values
    fitted = grid.fit(w)
    values = fitted.snap(w, fitted.scale, fitted.zero)
    if isinstance(grid, Float):
        torch.testing.assert_close(values, w)
    else:  # the search may find another scale with the same numbers, or an even nearer set: never a worse one
        assert (values - w).square().sum() <= 1e-3 * w.square().sum()


def test_every_bit_halves_the_error_or_nearly():
    w = draw(16, 128)
    errors = [float((rtn(w, Affine(bits, 64)).values - w).square().mean().sqrt()) for bits in (3, 4, 5, 6, 8)]
    for (more, less), bits in zip(itertools.pairwise(errors), (1, 1, 1, 2), strict=True):
        assert 1.6**bits < more / less < 2.3**bits


def test_searched_scales_lose_less_than_the_range():
    w = draw(16, 128)
    w[:, 5] *= 8  # an outlier in every row
    for bits, most in ((2, 0.6), (3, 0.8), (4, 1.0)):
        fitted = Affine(bits, 128).fit(w)
        range_ = fitted.rescaled(w.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 0.5))
        plain = range_.snap(w, range_.scale, None)
        assert (rtn(w, Affine(bits, 128)).values - w).square().sum() < most * (plain - w).square().sum()


def test_what_weighs_more_is_rounded_better():
    w, weight = draw(16, 64), torch.ones(64)
    weight[:8] = 100
    plain, weighted = ((rtn(w, Affine(2, 64), x).values - w).square() for x in (None, weight))
    assert weighted[:, :8].sum() < plain[:, :8].sum()
    assert (weight * weighted).sum() < (weight * plain).sum()
