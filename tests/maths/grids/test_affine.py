"""Integers with a scale per group: fits worked out by hand, and what a file can hold."""

import pytest
import torch

from secateur.maths.grids.affine import Affine, FittedAffine, exact, held, snap_together

FP8 = torch.float8_e4m3fn


def values(grid, w, weight=None):
    fit = grid.fit(w, weight)
    return fit.snap(w, fit.scale, fit.zero)


def test_symmetric_by_hand():
    # codes -2 -1 0 1 on -1 -0.5 0 0.5
    w = torch.tensor([[-1.0, -0.5, 0.0, 0.5]])
    fit = Affine(2, 4).fit(w)
    assert fit.scale.tolist() == [[0.5, 0.5, 0.5, 0.5]]
    assert fit.zero is None and (fit.low, fit.high) == (-2, 1)
    assert fit.codes(w).tolist() == [[-2, -1, 0, 1]]
    assert fit.snap(torch.tensor([[-9.0, -0.74, 0.26, 9.0]]), fit.scale, None).tolist() == [[-1.0, -0.5, 0.5, 0.5]]


def test_halves_go_to_the_even_code():
    fit = FittedAffine(torch.ones(1, 4), None, -4, 3, 4, torch.float16)
    assert fit.snap(torch.tensor([[0.5, 1.5, 2.5, -1.5]]), fit.scale, None).tolist() == [[0, 2, 2, -2]]


def test_asymmetric_by_hand():
    # 0 to 0.75 in steps of 0.25 from code 0; the second group from -0.25
    w = torch.tensor([[0.0, 0.25, 0.5, 0.75, -0.25, 0.0, 0.25, 0.5]])
    fit = Affine(2, 4, symmetric=False).fit(w)
    assert fit.scale.tolist() == [[0.25] * 8]
    assert fit.zero is not None and fit.zero[0, ::4].tolist() == [0, 1]
    assert fit.codes(w).tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    coded = fit.code(w)
    assert coded.tensors["codes"].dtype == coded.tensors["zero"].dtype == torch.int8
    assert coded.tensors["zero"].tolist() == [[0, 1]]


def test_asymmetric_ranges_include_zero():
    w = torch.linspace(3, 4, 16)[None]
    fit = Affine(8, 16, symmetric=False).fit(w)
    assert fit.zero is not None and not fit.zero.any()
    assert values(Affine(8, 16, symmetric=False), torch.zeros(1, 16)).tolist() == [[0.0] * 16]


def test_fractional_zeros_by_hand():
    # two levels, 3 and 4: scale 1 and code -1 at 3 want the zero point at -4, which E4M3 holds
    w = torch.tensor([[3.0, 4.0, 3.0, 4.0]])
    fit = Affine(1, 4, False, FP8, FP8).fit(w)
    assert torch.equal(fit.snap(w, fit.scale, fit.zero), w)
    assert (fit.low, fit.high) == (-1, 0)


@pytest.mark.parametrize("scale", [torch.float16, torch.bfloat16, FP8])
@pytest.mark.parametrize("bits", [1, 2, 4, 5, 8])
def test_groups_of_one_value_keep_it(bits, scale):
    grid = Affine(bits, 32, False, scale, FP8)
    error = {torch.float16: 2**-11, torch.bfloat16: 2**-8, FP8: 2**-4}[scale]
    for value in (0.5, -0.03, 20.0, 0.0):
        w = torch.full((2, 32), value)
        assert float((values(grid, w) - w).abs().max()) <= abs(value) * error


def test_outliers_are_cut_off_where_that_pays():
    w = torch.cat([torch.linspace(-1, 1, 127), torch.tensor([3.0])])[None]
    weight = torch.ones(128)
    weight[-1] = 1e-3
    # the whole range would need 0.75; for the others alone 0.25 is right
    assert float(Affine(3, 128).fit(w, weight).scale.abs().max()) < 0.4
    assert float(Affine(3, 128).fit(w, 1 / weight).scale.abs().max()) > 0.7


def test_weights_by_column_or_by_entry():
    w = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    weight = torch.rand(32, generator=torch.Generator().manual_seed(1))
    for grid in (Affine(2, 16), Affine(2, 16, False), Affine(2, 16, False, zeros=FP8)):
        assert torch.equal(grid.fit(w, weight).scale, grid.fit(w, weight.expand(4, 32)).scale)
        assert torch.equal(grid.fit(w).scale, grid.fit(w, torch.ones(32)).scale)


def test_never_worse_than_the_whole_range():
    w = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    for bits in (2, 3, 4, 8):
        scale = exact(w.abs().view(16, 2, 32).amax(-1) / (2 ** (bits - 1) - 1), torch.float16).repeat_interleave(32, 1)
        plain = FittedAffine(scale, None, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 32, torch.float16)
        error = (plain.snap(w, scale, None) - w).square().sum()
        assert (values(Affine(bits, 32), w) - w).square().sum() <= error


def test_group_0_is_the_row():
    w = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Affine(4, 0).fit(w).scale, Affine(4, 24).fit(w).scale)
    assert Affine(4, 0).fit(w).code(w).tensors["scale"].shape == (3, 1)


def test_eight_bits_from_zero_need_more_than_a_signed_byte():
    w = torch.linspace(-1, 3, 32)[None]
    fit = Affine(8, 32, symmetric=False).fit(w)
    codes = fit.code(fit.snap(w, fit.scale, fit.zero)).tensors["codes"]
    assert codes.dtype == torch.int16 and int(codes.max()) == 255 and int(codes.min()) == 0


def test_what_a_number_type_holds():
    x = torch.tensor([1e-30, -1e-30, 1e9, 1 / 3])
    assert exact(x, torch.float16).tolist() == [2.0**-14, -(2.0**-14), 65504.0, 0.333251953125]
    assert exact(x, FP8).tolist() == [2.0**-9, -(2.0**-9), 448.0, 0.34375]
    assert exact(x, torch.bfloat16)[0] == pytest.approx(1e-30, rel=2**-8)
    assert held(torch.tensor([0.0, 500.0, -1e9]), FP8).tolist() == [0.0, 448.0, -448.0]


def test_rescaled():
    w = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    fit = Affine(3, 16).fit(w)
    new = fit.rescaled(torch.tensor([[1 / 3, 2.0], [-0.1, 1e-30]]))
    assert new.scale[:, ::16].tolist() == [[0.333251953125, 2.0], [-0.0999755859375, 2.0**-14]]
    fraction = Affine(3, 16, False, zeros=FP8).fit(w)
    new = fraction.rescaled(torch.full((2, 2), 0.5), torch.full((2, 2), -0.75))
    assert new.zero is not None and (new.zero == 1.5).all()  # code 0 lies at (0 - 1.5) * 0.5
    whole = Affine(3, 16, False).fit(w)
    assert whole.rescaled(torch.ones(2, 2), torch.ones(2, 2)).zero is whole.zero


def test_ranges_stand_beside_each_other():
    w = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    grids = [Affine(2, 16).fit(w), Affine(4, 0).fit(w), Affine(3, 16, False).fit(w)]
    # a rounder calls it with diagonals: [tiles, entries], here one of the first grid and two of each other
    of = [0, 1, 1, 2, 2]
    scale = torch.stack([grids[k].scale[0] for k in of])
    zero = torch.stack([torch.zeros(32) if (z := grids[k].zero) is None else z[0] for k in of])
    at_once = snap_together(grids, [1, 2, 2])(w[0].expand(5, 32), scale, zero)
    alone = [g.snap(w[0], g.scale[0], None if g.zero is None else g.zero[0]) for g in (grids[k] for k in of)]
    assert torch.equal(at_once, torch.stack(alone))


def test_payload_bits_by_hand():
    assert Affine(3, 64).payload_bits(2, 128) == 2 * 128 * 3 + 2 * 2 * 16
    assert Affine(3, 64, False).payload_bits(2, 128) == 2 * 128 * 3 + 2 * 2 * 16 + 16  # 4 zeros of 3 bits: two bytes
    assert Affine(2, 32, False, FP8, FP8).payload_bits(1, 32) == 64 + 8 + 8
    assert Affine(3, 0).payload_bits(1, 3) == 16 + 16  # nine bits: two bytes
