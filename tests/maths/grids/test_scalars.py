"""The scalar block types of ggml: by hand, byte for byte against the package that reads them, and against C."""

import pytest
import torch
from safetensors import safe_open

from secateur.maths.grids import blocks
from secateur.maths.grids.layout import LAYOUTS, Exponent, Half
from secateur.maths.grids.scalars import FittedScalars, Scalars
from secateur.maths.grids.shapes import NONLINEAR, SHAPES, nonlinear
from secateur.maths.grids.stored import Stored, half, multiples

EVERY = pytest.mark.parametrize("kind", blocks.SCALARS)


def gaussian(rows=64, cols=512):
    return 0.02 * torch.randn(rows, cols, generator=torch.Generator().manual_seed(0))


def heavy(rows=64, cols=512):
    """Student's t with three degrees of freedom: a few weights are twenty times the usual."""
    random = torch.Generator().manual_seed(1)
    parts = torch.randn(4, rows, cols, generator=random)
    return 0.02 * parts[0] / (parts[1:].square().sum(0) / 3).sqrt()


def heed(cols=512):
    """Second moments of inputs, as uneven as they are."""
    return torch.rand(cols, generator=torch.Generator().manual_seed(2)) ** 3 * 10 + 0.01


def fitted(kind, w, weight=None):
    fit = Scalars(kind).fit(w, weight)
    return fit, fit.snap(w, fit.scale, fit.zero)


# by hand


def test_q4_0_by_hand():
    w = torch.zeros(1, 32)
    w[0, :3] = torch.tensor([-0.8, 0.3, 0.7])
    fit = FittedScalars.of(SHAPES["q4_0"], Stored(half(torch.tensor([[0.1]]))), torch.ones(1, 1))
    values = fit.snap(w, fit.scale, fit.zero)
    raw = fit.code(values).tensors["blocks"][0].tolist()
    d = int(half(torch.tensor([0.1])).half().view(torch.int16))
    # codes -8, 3, 7 and zeros are 0, 11, 15 and 8; the upper halves hold weights 16 to 31
    assert raw == [d & 255, d >> 8, 0x80, 0x8B, 0x8F, *[0x88] * 13]


def test_q2_k_by_hand():
    """Group 1 has scale 2 * 0.25 and offset 3 * 0.5: values -1.5, -1, -0.5, 0."""
    stored = Stored(torch.tensor([[0.25]]), torch.ones(1, 16), torch.tensor([[0.5]]), torch.zeros(1, 16))
    stored.subs[0, 1], stored.mins[0, 1] = 2, 3
    fit = FittedScalars.of(SHAPES["q2_k"], stored, torch.ones(1, 16))
    w = torch.zeros(1, 256)
    w[0, 16:20] = torch.tensor([-2.0, -0.9, -0.5, 1.0])
    values = fit.snap(w, fit.scale, fit.zero)
    assert values[0, 16:21].tolist() == [-1.5, -1.0, -0.5, 0.0, 0.0]
    raw = fit.code(values).tensors["blocks"][0]
    assert raw[:3].tolist() == [0x01, 0x32, 0x01]
    # weight 16 is byte 16 of the first run, lowest plane; the other weights of group 1 have code 3
    assert raw[16 + 16 : 16 + 21].tolist() == [0, 1, 2, 3, 3]
    assert raw[-4:].tolist() == [0, 0x34, 0, 0x38]  # 0.25 and 0.5


def test_levels_of_iq4_are_the_nearest():
    x = torch.linspace(-140, 130, 5401)
    there = torch.tensor(NONLINEAR, dtype=torch.float32)
    least = (x[:, None] - there).abs().amin(1)
    assert torch.equal((nonlinear(x.clone()) - x).abs(), least)


def test_multiples_by_hand():
    d, n = multiples(torch.tensor([[-4.0, -0.5, 1.0]]), torch.ones(1, 3), -8, 7)
    assert (d.tolist(), n.tolist()) == ([0.5], [[-8, -1, 2]])
    d, n = multiples(torch.tensor([[0.0, 0.0, 3.0]]), torch.ones(1, 3), 0, 15)
    assert (n >= 1).all() and float(d * n[0, 2]) == pytest.approx(3.0, rel=1e-3)
    d, n = multiples(torch.tensor([[0.0, 0.0, 3.0]]), torch.ones(1, 3), 0, 15, zero=True)
    assert n[0, :2].tolist() == [0, 0]


# the bytes


@EVERY
def test_any_bytes_are_read_as_the_public_package_does(kind, reader):
    shape, rows, cols, at = SHAPES[kind], 8, 1024, 0
    size = (rows, blocks.row_bytes(kind, cols))
    raw = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for segment in LAYOUTS[kind]:  # scales are to be neither infinite nor NaN
        here = raw.view(rows, -1, blocks.KINDS[kind][1])[:, :, at:]
        if isinstance(segment, Half):
            here[:, :, 1] &= 0x3B
        if isinstance(segment, Exponent):
            here[:, :, 0] = here[:, :, 0] % 200 + 2
        at += segment.bytes(shape.weights, shape.groups * (2 if shape.mins else 1))
    assert at == blocks.KINDS[kind][1]
    assert torch.equal(blocks.decode(kind, raw), reader(kind, raw))


@EVERY
def test_what_is_coded_is_what_the_public_package_reads(kind, reader):
    for w in (gaussian(8), heavy(8) * 100, heavy(8) + 0.05, torch.zeros(2, 256)):
        fit, values = fitted(kind, w)
        coded = fit.code(values)
        assert coded.tensors["blocks"].shape == (len(w), blocks.row_bytes(kind, w.shape[1]))
        assert torch.equal(coded.values, values)
        assert torch.equal(reader(kind, coded.tensors["blocks"]), values)


def test_rows_must_be_whole_blocks():
    with pytest.raises(ValueError, match="rows of 96 weights are not whole blocks of 256"):
        Scalars("q4_k").fit(torch.zeros(2, 96))


# how good the scales are


def against(ggml, reader, kind, w, weight):
    """Our weighted squared error over that of the real encoder."""
    theirs, ours = reader(kind, ggml.encode(kind, w, weight)), fitted(kind, w, weight)[1]
    heeded = torch.ones(w.shape[1]) if weight is None else weight
    lost = [float(((seen - w).square() @ heeded).sum()) for seen in (ours, theirs)]
    return lost[0] / lost[1]


@EVERY
@pytest.mark.parametrize("make", [gaussian, heavy])
@pytest.mark.parametrize("heeded", [False, True])
def test_no_worse_than_the_real_encoder(kind, make, heeded, ggml, reader):
    bound = 0.93 if kind in ("q2_k", "q4_1", "q5_1", "tq1_0", "tq2_0") else 0.985
    assert against(ggml, reader, kind, make(), heed() if heeded else None) < bound


@EVERY
def test_no_worse_than_the_real_encoder_on_weights_of_a_network(kind, ggml, reader, shared):
    with safe_open(shared / "models/lm-small/model.safetensors", "pt") as file:
        w = file.get_tensor("model.layers.1.mlp.gate_proj.weight").float()
    w = w[:128, : w.shape[1] // 256 * 256]
    for weight in (None, heed(w.shape[1])):
        assert against(ggml, reader, kind, w, weight) < 0.985


@pytest.mark.parametrize("kind", ["q2_k", "q4_k", "q5_k"])
def test_one_unheard_weight_spoils_nothing(kind):
    """A huge weight that no input reaches must not decide the range."""
    w, weight = gaussian(4, 256), torch.ones(256)
    weight[100] = 0.0
    without = w.clone()
    w[:, 100] = -5.0
    errors = [(fitted(kind, x, weight)[1] - x).square() @ weight for x in (w, without)]
    assert (errors[0] < 1.3 * errors[1]).all()


# other scales


@EVERY
def test_scales_that_are_held_are_held_again(kind):
    fit, values = fitted(kind, gaussian(8), heed())
    again = fit.rescaled(fit.scale[:, :: fit.group], fit.shift)
    now = again.snap(gaussian(8), again.scale, again.zero)
    lost = [float(((seen - gaussian(8)).square() @ heed()).sum()) for seen in (values, now)]
    assert lost[1] < 1.1 * lost[0]


@pytest.mark.parametrize("kind", ["q2_k", "q4_k", "q4_1"])
def test_offsets_move(kind):
    fit, _ = fitted(kind, gaussian(8))
    assert fit.shift is not None and fit.zeros is not None
    moved = fit.rescaled(fit.scale[:, :: fit.group], fit.shift * 1.2)
    gone = (moved.shift - fit.shift * 1.2).abs() / fit.scale[:, :: fit.group]
    assert float(gone.mean()) < 0.3  # in steps
    assert Scalars("q4_0").fit(gaussian(8)).shift is None
