"""Small floating-point numbers: every number and every tie, and scales as the formats hold them."""

import pytest
import torch

from secateur.maths.grids.floats import FP4, Float, code_fp4, snap_fp4, snap_fp8, stored_scale


def test_fp4_every_number_and_its_code():
    sizes = torch.tensor(FP4)
    assert torch.equal(snap_fp4(sizes), sizes)
    assert code_fp4(sizes).tolist() == [*range(8)]
    assert code_fp4(-sizes).tolist() == [0, *range(9, 16)]  # there is one zero


def test_fp4_ties_go_to_even_codes():
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert snap_fp4(ties).tolist() == [0, 1, 1, 2, 2, 4, 4]
    assert snap_fp4(-ties).tolist() == [0, -1, -1, -2, -2, -4, -4]
    assert snap_fp4(torch.tensor([7.0, -1e9, 5.1])).tolist() == [6, -6, 6]


def test_fp4_is_the_nearest():
    x = torch.linspace(-7, 7, 4001)
    levels = torch.tensor([*FP4, *(-v for v in FP4)])
    nearest = (x[:, None] - levels).abs().amin(1)
    torch.testing.assert_close((snap_fp4(x) - x).abs(), nearest)


def test_fp8_saturates():
    x = torch.tensor([500.0, -1e9, 0.3, 2.0**-9, 2.0**-11])
    assert snap_fp8(x).tolist() == [448.0, -448.0, 0.3125, 2.0**-9, 0.0]


def test_stored_scales():
    s = torch.tensor([0.3, -3.0, 1e-30, 0.0])
    assert stored_scale(s, "mxfp4", 1.0, torch.float16)[:2].tolist() == [0.25, 4.0]
    assert stored_scale(torch.tensor([0.0, 1e-45]), "mxfp4", 1.0, torch.float16).tolist() == [2.0**-126] * 2
    assert stored_scale(s, "nvfp4", 64.0, torch.float16).tolist() == [0.3125, 3.0, 2.0**-15, 2.0**-15]
    assert stored_scale(s, "fp8", 1.0, torch.float16).tolist() == [0.300048828125, 3.0, 2.0**-14, 2.0**-14]


def test_mxfp4_by_hand():
    w = torch.zeros(1, 64)
    w[0, :8], w[0, 32], w[0, 33] = torch.tensor(FP4) / 8, -24.0, 2.0
    fit = Float("mxfp4").fit(w)
    coded = fit.code(fit.snap(w, fit.scale, None))
    assert torch.equal(coded.values, w)
    assert coded.tensors["scale"].tolist() == [[127 - 3, 127 + 2]]
    assert coded.tensors["codes"][0, :8].tolist() == [*range(8)]
    assert int(coded.tensors["codes"][0, 32]) == 15


def test_nvfp4_by_hand():
    # the largest weight sets the global scale: 12 = 6 * 448 / 224
    w = torch.zeros(1, 32)
    w[0, :8], w[0, 16:24] = 2 * torch.tensor(FP4), torch.tensor(FP4) / 4
    fit = Float("nvfp4").fit(w)
    coded = fit.code(fit.snap(w, fit.scale, None))
    assert coded.tensors["global_scale"].tolist() == [224.0]
    assert coded.tensors["scale"].float().tolist() == [[448.0, 56.0]]
    assert torch.equal(coded.values, w)


def test_fp8_by_hand():
    w = torch.tensor([[448.0, 1.0, -0.5, 240.0], [0.875, 0.0, 0.25, -0.375]])
    fit = Float("fp8").fit(w)
    assert fit.scale[:, 0].tolist() == [1.0, 2.0**-9]  # 0.875 is 448 * 2^-9
    assert torch.equal(fit.snap(w, fit.scale, None), w)
    assert fit.code(w).tensors["codes"].dtype == torch.float8_e4m3fn


def test_the_search_pays():
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    for kind, group in (("mxfp4", 32), ("nvfp4", 16)):
        fit = Float(kind).fit(w)
        top = w.view(8, -1, group).abs().amax(-1) / 6
        plain = stored_scale(top, kind, fit.globally, torch.float16).repeat_interleave(group, 1)
        found = (fit.snap(w, fit.scale, None) - w).square().sum()
        assert found < (fit.snap(w, plain, None) - w).square().sum()


@pytest.mark.parametrize("kind", ["fp8", "mxfp4", "nvfp4"])
def test_rescaled_scales_are_held_and_positive(kind):
    w = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    fit = Float(kind).fit(w)
    new = fit.rescaled(-1.1 * fit.scale[:, :: fit.group])
    assert (new.scale > 0).all()
    again = new.rescaled(new.scale[:, :: new.group])
    assert torch.equal(again.scale, new.scale)


def test_payload_bits_by_hand():
    assert Float("fp8").payload_bits(2, 64) == 2 * 64 * 8 + 2 * 16
    assert Float("mxfp4").payload_bits(2, 64) == 2 * 64 * 4 + 4 * 8
    assert Float("nvfp4").payload_bits(2, 64) == 2 * 64 * 4 + 8 * 8 + 32
