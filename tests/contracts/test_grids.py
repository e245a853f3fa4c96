"""The laws of the role: what a grid gives is on it, is coded without loss, and costs what was announced.

Grids are collected by path, through the edits that name them: every file of `parts/edits`, with knobs from here.
"""

from dataclasses import fields
from functools import cache
from itertools import pairwise

import pytest
import torch

from secateur.maths.forms import is_form
from secateur.maths.grids.blocks import SCALARS
from secateur.maths.grids.codebooks import BOOKS
from secateur.maths.packing import pack, unpack
from secateur.parts import edits
from secateur.parts.edits.ggml import Ggml

ROWS, COLS = 6, 768
FP8 = {"symmetric": False, "scale": "fp8", "zero": "fp8"}
#: what to try of each edit that needs knobs or has some worth turning
KNOBS = {
    "channels": [{"keep": 0.5}],  # no grid of its own: tests/parts/test_narrow.py
    "ggml": [{"kind": kind} for kind in (*SCALARS, *BOOKS)],
    "rank": [{"keep": 0.5}],  # a form: tests/maths/test_lowrank.py
    "sparse": [{"keep": 0.5}],  # a form: tests/maths/test_sparse.py
    "each": [],  # edits of its sides, not its own
    "heads": [],  # no grid of its own
    "experts": [],  # nor have these
    "trunks": [],
    "int": [
        {"bits": 2, "group": 32},
        {"bits": 3, "group": 64},
        {"bits": 4, "group": 0},
        {"bits": 5, "group": 96},
        {"bits": 8, "group": 0},
        {"bits": 2, "group": 32, "symmetric": False},
        {"bits": 4, "group": 64, "symmetric": False},
        {"bits": 8, "group": 64, "symmetric": False},
        {"bits": 3, "group": 32, "scale": "fp8"},
        {"bits": 2, "group": 64, "symmetric": False, "zero": "fp8"},
        *({"bits": bits, "group": 64, **FP8} for bits in (1, 2, 3, 5, 8)),
    ],
}


def offered():
    """One edit for every entry of KNOBS; those that can be made without any are made so too."""
    for name in edits.names():
        kind = edits.find(name)
        tried = KNOBS.get(name, [{}])
        for edit in (kind(**knobs) for knobs in tried):
            grid = edit.grid() if hasattr(edit, "grid") else None  # what only removes has none
            if grid is not None and not is_form(grid):
                yield pytest.param(edit, id=str(edit))


def weights():
    """Matrices as they come, and as they should not: by name."""
    random = torch.Generator().manual_seed(0)
    plain = 0.05 * torch.randn(ROWS, COLS, generator=random)
    outlier = plain.clone()
    outlier[2, 7], outlier[4, 100] = 3.0, -5.0
    some = plain.clone()
    some[0], some[1, :32], some[2, 64:128] = 0.0, 0.0, 0.5
    some[3], some[4, :96], some[5, 3] = -0.03, 100.0, 1e-30
    return {
        "plain": plain,
        "tiny": plain * 2e-7,
        "large": plain * 2e5,
        "outlier": outlier,
        "above zero": plain.abs() + 0.02,
        "below zero": -plain.abs(),
        "groups of one value": some,
        "nothing": torch.zeros(ROWS, COLS),
        "steps of magnitude": plain * torch.logspace(-6, 2, ROWS)[:, None],
    }


MATRICES = weights()
EVERY = pytest.mark.parametrize("edit", [*offered()])
#: the laws hold for every matrix and number type; a test that fails says which
CASES = [(what, dtype) for what in MATRICES for dtype in ("float16", "bfloat16", "float32")]


@cache
def fitted(edit, what, dtype="float16"):
    """A matrix, the grid fitted to it, and its nearest values."""
    w = MATRICES[what]
    fit = edit.grid(dtype).fit(w, torch.linspace(0.1, 2, COLS))
    return w, fit, fit.snap(w, fit.scale, fit.zero)


def held_as(part, dtype):
    """The number type of a part that is not whole numbers."""
    names = {"F8_E4M3": torch.float8_e4m3fn, "U8": torch.uint8, "F32": torch.float32}
    return names[part.dtype] if part.dtype else getattr(torch, dtype)


def everywhere(edit, fit, tensors):
    """Every number there is, at every place: what is decoded when all weights have the same code."""
    if isinstance(edit, Ggml):
        n = fit.shape.high - fit.shape.low + 1 if fit.shape.even else 16
        codes = torch.arange(n) + (fit.shape.low - fit.shape.first)
        return [edit.decode({"blocks": fit.packed(code.expand(ROWS, COLS))}) for code in codes]
    levels = levels_of(edit.payload(ROWS, COLS)["codes"], tensors["codes"])
    return [edit.decode(tensors | {"codes": level.expand(ROWS, COLS)}) for level in levels]


def levels_of(part, codes):
    """Every code there is, as one number each."""
    if part.levels:
        return torch.arange(part.low, part.low + part.levels).to(codes.dtype)
    every = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(codes.dtype)
    return every[~every.float().isnan()]


def test_every_edit_with_needs_has_knobs_here():
    needing = {n for n in edits.names() if any(f.default is f.default_factory for f in fields(edits.find(n)))}
    assert needing <= set(KNOBS) <= set(edits.names())


@EVERY
def test_snap_twice_is_snap_once(edit):
    for what, dtype in CASES:
        _, fit, values = fitted(edit, what, dtype)
        assert torch.equal(fit.snap(values, fit.scale, fit.zero), values), (what, dtype)


@EVERY
def test_codes_lose_nothing(edit):
    for what, dtype in CASES:
        _, fit, values = fitted(edit, what, dtype)
        coded = fit.code(values)
        assert torch.isfinite(values).all(), (what, dtype)
        assert torch.equal(coded.values, values), (what, dtype)
        assert coded.values.dtype == torch.float32


@EVERY
def test_the_payload_is_what_was_announced(edit):
    parts = edit.payload(ROWS, COLS)
    for what, dtype in CASES:
        _, fit, values = fitted(edit, what, dtype)
        tensors = fit.code(values).tensors
        assert set(tensors) == set(parts)
        for name, part in parts.items():
            assert tuple(tensors[name].shape) == part.shape, name
            if part.levels:
                assert not tensors[name].is_floating_point()
                assert part.low <= int(tensors[name].min()), (name, what, dtype)
                assert int(tensors[name].max()) < part.low + part.levels, (name, what, dtype)
            else:
                assert tensors[name].dtype == held_as(part, dtype), name


@EVERY
def test_readers_see_the_values(edit):
    """From the payload alone, whole numbers packed and unpacked on the way."""
    parts = edit.payload(ROWS, COLS)
    for what, dtype in CASES:
        _, fit, values = fitted(edit, what, dtype)
        tensors = fit.code(values).tensors
        for name, part in parts.items():
            if part.levels:
                whole = pack(tensors[name].int() - part.low, part.levels)
                tensors[name] = (unpack(whole, part.levels, tensors[name].numel()) + part.low).view(part.shape)
        assert torch.equal(edit.decode(tensors), values), (what, dtype)


@EVERY
def test_each_weight_gets_the_nearest_number_there_is(edit):
    for what in MATRICES:
        w, fit, values = fitted(edit, what)
        if fit.step > 1:
            pytest.skip("columns are coded together")
        there = everywhere(edit, fit, fit.code(values).tensors)
        least = torch.stack([(value - w).abs() for value in there]).amin(0)
        assert ((values - w).abs() <= least * (1 + 1e-5) + 1e-6 * w.abs()).all(), what


@EVERY
@pytest.mark.parametrize(("rows", "cols"), [(ROWS, COLS), (1, 768), (5, 1536), (33, 3840)])
def test_quoted_bits_are_those_of_the_payload(edit, rows, cols):
    grid, parts = edit.grid("bfloat16"), edit.payload(rows, cols)
    assert grid.payload_bits(rows, cols) == sum(part.bits for part in parts.values())


@EVERY
def test_other_scales_are_held_as_the_file_can(edit):
    for dtype in ("float16", "bfloat16"):
        w, fit, values = fitted(edit, "plain", dtype)
        for factor in (1.0, 1.1, 0.37, 1e-9, 1e9):
            other = fit.rescaled(fit.scale[:, :: fit.group] * factor)
            values = other.snap(w, other.scale, other.zero)
            assert torch.equal(edit.decode(other.code(values).tensors), values), (factor, dtype)
            assert torch.isfinite(other.scale).all() and other.scale.abs().min() > 0


@EVERY
def test_weights_of_columns_are_heeded(edit):
    """What nobody looks at may be wrong: half the columns weigh nothing, and the others come out no worse."""
    w = MATRICES["outlier"] + 0.01
    weight = torch.ones(COLS)
    weight[::2] = 0.0
    grid = edit.grid()
    errors = [(fit.snap(w, fit.scale, fit.zero) - w) ** 2 @ weight for fit in (grid.fit(w, weight), grid.fit(w))]
    assert float(errors[0].sum()) <= float(errors[1].sum()) * (1 + 1e-5)


@EVERY
def test_rows_alone_are_fitted_alike(edit):
    w = MATRICES["plain"]
    grid = edit.grid()
    if "global_scale" in edit.payload(ROWS, COLS):
        pytest.skip("one number is shared by all rows")
    assert torch.equal(grid.fit(w).scale[2:4], grid.fit(w[2:4]).scale)


@pytest.mark.parametrize("knobs", [{}, {"symmetric": False}, {"scale": "fp8"}, FP8], ids=str)
def test_more_bits_less_error(knobs):
    kind = edits.find("int")
    w = MATRICES["plain"][:, :192] * (
        100 if "scale" in knobs else 1
    )  # E4M3 is coarse below 2^-6, and scales shrink with bits
    errors = []
    for bits in range(2, 9):
        fit = kind(bits, 32, **knobs).grid().fit(w)
        errors.append(float((fit.snap(w, fit.scale, fit.zero) - w).square().sum()))
    assert all(more < 0.4 * less for less, more in pairwise(errors))  # a quarter, nearly


def test_a_negative_scale_lies_where_the_longer_side_is_needed():
    w = torch.tensor([[-0.5, 0.5, 1.0, 0.0] * 8, [0.5, -0.5, -1.0, 0.0] * 8])
    fit = edits.find("int")(2, 32).grid().fit(w)
    assert (fit.scale[0] == -0.5).all() and (fit.scale[1] == 0.5).all()
    assert torch.equal(fit.snap(w, fit.scale, None), w)
