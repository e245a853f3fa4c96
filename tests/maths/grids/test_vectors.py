"""The vector block types of ggml: by hand, byte for byte against the package that reads them, against C, fed back."""

import sys

import pytest
import torch
from safetensors import safe_open

from secateur.maths.grids import blocks, codebooks
from secateur.maths.grids.codebooks import BOOKS, Book
from secateur.maths.grids.entries import nearest_entries
from secateur.maths.grids.vectors import FittedVectors, Vectors, held
from secateur.maths.rounding import damage, nearest, refit
from secateur.maths.settle import Effort, Metric, settle, swept
from secateur.types import SecateurError

EVERY = pytest.mark.parametrize("kind", BOOKS)


def gaussian(rows=32, cols=512, seed=0):
    return 0.02 * torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def heavy(rows=32, cols=512):
    """Student's t with three degrees of freedom: a few weights are twenty times the usual."""
    random = torch.Generator().manual_seed(1)
    parts = torch.randn(4, rows, cols, generator=random)
    return 0.02 * parts[0] / (parts[1:].square().sum(0) / 3).sqrt()


def heed(cols=512):
    """Second moments of inputs, as uneven as they are."""
    return torch.rand(cols, generator=torch.Generator().manual_seed(2)) ** 3 * 10 + 0.01


def fitted(kind, w, weight=None):
    fit = Vectors(kind).fit(w, weight)
    return fit, fit.snap(w, fit.scale, None, weight)


def one_scale(kind, d, odd, rows=1, cols=256):
    """A grid with the same scale everywhere."""
    book = BOOKS[kind]
    return FittedVectors(book, torch.full((rows, cols), d * odd / book.unit), torch.ones(1, cols // book.group))


# by hand


def test_iq3_s_by_hand():
    """Scales 0.5 * (1 + 2 * 2) = 2.5: magnitudes 2.5, 7.5, ... 37.5."""
    fit = one_scale("iq3_s", 0.5, 5)
    table = BOOKS["iq3_s"].table
    w = (2.5 * table[300]).repeat(64).view(1, 256)
    w[0, 1] = -w[0, 1]
    values = fit.snap(w + 0.3, fit.scale)
    assert torch.equal(values, w)
    raw = fit.code(values).tensors["blocks"][0].tolist()
    # entry 300 is 44 and a high bit; one sign of the first eight
    assert raw == [0x00, 0x38, *[44] * 64, *[0xFF] * 8, 0b10, *[0] * 31, *[0x22] * 4]


def test_iq2_xxs_by_hand():
    """Two of eight signs are negative, the last among them: seven bits say so, the eighth follows."""
    fit = one_scale("iq2_xxs", 1.0, 3)
    table = BOOKS["iq2_xxs"].table
    w = (3 / 8 * table[200]).repeat(32).view(1, 256)
    w[0, 2], w[0, 7] = -w[0, 2], -w[0, 7]
    values = fit.snap(w, fit.scale)
    assert torch.equal(values, w)
    raw = fit.code(values).tensors["blocks"][0].tolist()
    assert raw[:10] == [0x00, 0x3C, 200, 200, 200, 200, 0b100, 0, 0, 0x10]
    assert raw[10:18] == [200, 200, 200, 200, 0, 0, 0, 0x10]


def test_a_sign_that_must_turn_is_the_cheapest():
    fit = one_scale("iq2_xs", 1.0, 1)
    w = torch.full((1, 256), 1.0)
    w[0, 3], w[0, 5] = -1.2, 0.1
    values = fit.snap(w, fit.scale)
    assert [at for at, negative in enumerate((values < 0)[0].tolist()) if negative] == [3, 5]
    weight = torch.ones(256)
    weight[5], weight[6] = 1000.0, 0.01  # the small one is heard: another must turn
    turned = fit.snap(w, fit.scale, None, weight)
    assert [at for at, negative in enumerate((turned < 0)[0].tolist()) if negative] == [3, 6]


@EVERY
def test_books(kind):
    book = BOOKS[kind]
    table = book.table
    assert table.shape[1] == book.wide
    assert torch.equal(book.index(table), torch.arange(len(table)))
    assert len(table.unique()) == {"1": 6, "2": 3, "3": 8}[kind[2]]
    assert (table > 0).all() or book.signs == "none"


def test_without_the_package_that_has_the_books(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(SecateurError, match="the codebook of iq9 comes with the package gguf") as said:
        _ = Book("iq9", 32, 8, 8, 8.0, 16).table
    assert said.value.hint == "pip install 'secateur[gguf]'"
    codebooks._table.cache_clear()


# the bytes


@EVERY
def test_what_is_coded_is_what_the_public_package_reads(kind, reader):
    some = gaussian(8)
    some[1], some[2, 256:], some[3] = 0.0, 0.0, 1e-12
    for w in (gaussian(8), heavy(8) * 100, heavy(8) + 0.05, some, torch.zeros(2, 256)):
        fit, values = fitted(kind, w)
        coded = fit.code(values)
        assert coded.tensors["blocks"].shape == (len(w), blocks.row_bytes(kind, w.shape[1]))
        assert torch.equal(coded.values, values)
        assert torch.equal(reader(kind, coded.tensors["blocks"]), values)
        assert torch.equal(blocks.decode(kind, coded.tensors["blocks"]), values)


@EVERY
def test_a_row_of_zeros_is_zeros(kind, reader):
    fit, values = fitted(kind, gaussian(3))
    values[1] = 0.0
    coded = fit.code(values)
    assert torch.equal(coded.values, values)
    assert torch.equal(reader(kind, coded.tensors["blocks"]), values)


def test_rows_must_be_whole_blocks():
    with pytest.raises(ValueError, match="rows of 96 weights are not whole blocks of 256"):
        Vectors("iq2_s").fit(torch.zeros(2, 96))


# the nearest


@EVERY
@pytest.mark.parametrize("heeded", [False, True])
def test_the_nearest_entry_of_all(kind, heeded):
    """Against every entry with every sign that may be: exact where signs are free, a percent off where they are not."""
    book, w = BOOKS[kind], gaussian(4, 256)
    weight = heed(256) if heeded else torch.ones(256)
    fit = Vectors(kind).fit(w, weight)
    values = fit.snap(w, fit.scale, None, weight if heeded else None)
    errors = ((values - w).square() * weight).view(-1, book.step).sum(1)
    cells, scale = w.view(-1, book.step), fit.scale.view(-1, book.step)[:, :1]
    each = weight.expand_as(w).reshape(cells.shape)
    signs = 1 - 2 * (torch.arange(2**book.step)[:, None] >> torch.arange(book.step) & 1)
    signs = {"free": signs, "even": signs[signs.prod(1) > 0], "none": signs[:1]}[book.signs]
    least = torch.full_like(errors, torch.inf)
    for sign in signs:
        want = (cells * sign).view(len(cells), -1, 1, book.wide)
        miss = (want - scale.abs()[:, None, None] * book.table).square() * each.view(len(cells), -1, 1, book.wide)
        miss = miss.sum(-1)
        if book.halves:
            miss = torch.where(scale[:, None] > 0, *miss.chunk(2, 2))
        least = torch.minimum(least, miss.amin(-1).sum(1))
    assert (errors >= least * (1 - 1e-4)).all()
    assert float(errors.sum()) <= float(least.sum()) * (1.02 if book.signs == "even" else 1 + 1e-5)
    negative = (values < 0).view(-1, 8).sum(1)
    assert (negative % 2 == 0).all() or book.signs != "even"


@EVERY
def test_cells_rows_and_matrices_are_snapped_alike(kind):
    fit, values = fitted(kind, gaussian(4))
    w, step = gaussian(4), fit.step
    cells = fit.snap(w.view(4, -1, step), fit.scale.view(4, -1, step))
    assert torch.equal(cells.view(4, -1), values)
    assert torch.equal(fit.snap(w[1], fit.scale[1]), values[1])
    assert torch.equal(fit.snap(w[:, step : 2 * step], fit.scale[:, step : 2 * step]), values[:, step : 2 * step])


# how good the scales are


def against(ggml, reader, kind, w, weight):
    """Our weighted squared error over that of the real encoder, which will not do without weights for most types."""
    heeded = torch.ones(w.shape[1]) if weight is None else weight
    theirs, ours = reader(kind, ggml.encode(kind, w, heeded)), fitted(kind, w, weight)[1]
    lost = [float(((seen - w).square() @ heeded).sum()) for seen in (ours, theirs)]
    return lost[0] / lost[1]


# without IQ1, for which the library builds tables for 13 s; measured by hand: 0.81 to 0.84
@pytest.mark.parametrize("kind", [kind for kind in BOOKS if not kind.startswith("iq1")])
def test_better_than_the_real_encoder(kind, ggml, reader, shared):
    with safe_open(shared / "models/lm-small/model.safetensors", "pt") as file:
        network = file.get_tensor("model.layers.1.mlp.gate_proj.weight").float()
    for w in (gaussian(), heavy(), network[:64]):
        for weight in (None, heed(w.shape[1])):
            assert against(ggml, reader, kind, w, weight) < 0.98


@EVERY
def test_scales_that_are_held_are_held_again(kind):
    fit, values = fitted(kind, gaussian(8), heed())
    again = fit.rescaled(fit.scale[:, :: fit.group])
    assert (again.scale / fit.scale - 1).abs().mean() < 0.02
    wider = fit.rescaled(1.2 * fit.scale[:, :: fit.group])
    assert (wider.scale / fit.scale - 1.2).abs().mean() < 0.03
    lost = [
        float(((seen - gaussian(8)).square() @ heed()).sum()) for seen in (values, nearest(gaussian(8), again, heed()))
    ]
    assert lost[1] < 1.02 * lost[0]


def test_held_by_hand():
    """1, 3 and 31 are odd numbers; of 5.4 and 30 that cannot both be had the one that matters more is."""
    want = torch.tensor([[1.0, 3.0, 31.0, 31.0, 31.0, 31.0, 31.0, 31.0]])
    assert torch.equal(held(BOOKS["iq3_s"], want, torch.ones(1, 8)).scale[:, ::32], want)
    matters = torch.tensor([[1e6, *[1.0] * 7]])
    found = held(BOOKS["iq3_s"], torch.tensor([[5.4, *[30.0] * 7]]), matters).scale[0, ::32]
    assert abs(float(found[0]) - 5.4) < abs(float(found[1]) - 30)


# fed back


def statistics(n, seed, share=0.6):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * n, n, generator=random)
    x += share * torch.randn(len(x), 1, generator=random)
    return x.T @ x / len(x)


@EVERY
def test_feedback_pays_and_stays_on_the_grid(kind):
    w, a, g = gaussian(32, 256), statistics(256, 1), statistics(32, 2)
    grid = Vectors(kind)
    none, one, two = (settle(w, grid, a, g, Effort(), sides) for sides in (0, 1, 2))
    assert two.damage < 0.9 * one.damage and one.damage < 0.9 * none.damage
    assert torch.equal(two.grid.snap(two.values, two.grid.scale), two.values)
    assert torch.equal(two.grid.code(two.values).values, two.values)
    more = settle(w, grid, a, g, Effort((1.0, 1.1), True, 1))
    assert more.damage <= two.damage
    assert torch.equal(more.grid.code(more.values).values, more.values)


def test_matrices_side_by_side_are_no_worse_than_alone():
    """Products of other sizes may be summed in another order, so a tie may fall another way: damages are compared."""
    a, g = statistics(256, 1), statistics(32, 2)
    metric = Metric.of(a, g, step=8)
    some = [gaussian(32, 256, seed) for seed in range(3)]
    fits = [Vectors("iq2_xs").fit(w, a.diagonal()) for w in some]
    together = swept([(metric, w, fit) for w, fit in zip(some, fits, strict=True)])
    for w, fit, values in zip(some, fits, together, strict=True):
        alone = float(metric.damage(w - metric.sweep(w, fit)))
        assert float(metric.damage(w - values)) == pytest.approx(alone, rel=0.05)
        assert torch.equal(fit.code(values).values, values)


def test_refitted_scales_suit_the_codes_better():
    w, a, g = gaussian(32, 256), statistics(256, 1), statistics(32, 2)
    fit = Vectors("iq2_s").fit(w, a.diagonal())
    metric = Metric.of(a, g, step=8)
    fit = fit.rescaled(fit.scale[:, ::16] * 0.8)  # off
    values = metric.sweep(w, fit)
    new = refit(w, values, fit, metric.a, metric.g)
    assert metric.damage(w - fit.codes(values) * new.scale) < metric.damage(w - values)


def test_rows_that_are_no_numbers_are_left_out():
    w, a, g = gaussian(8, 256), statistics(256, 1), statistics(8, 2)
    w[3, 7] = torch.nan
    done = settle(w, Vectors("iq3_xxs"), a, g)
    assert done.bad_rows == (3,)
    coded = done.grid.code(done.values)
    assert torch.equal(coded.values, done.values) and not coded.values[3].any()
    good = [0, 1, 2, 4, 5, 6, 7]
    assert damage((w - done.values)[good], a, g[good][:, good]) < 1e-2


@pytest.mark.parametrize("weighted", [True, False])
@EVERY
def test_a_short_list_holds_entries_of_the_book_and_hardly_worse_ones(kind, weighted):
    book, w = BOOKS[kind], heavy()
    weight = heed().expand_as(w) if weighted else None
    scale = torch.full_like(w, 0.02 / float(book.table.square().mean().sqrt()))
    if book.halves:  # below zero a scale means the other half
        scale = scale * torch.where(torch.arange(512) // 32 % 2 == 0, 1.0, -1.0)
    lost = []
    for short in (False, True):
        found = nearest_entries(book, w, scale, weight, short)
        codes = (8 * found / scale).round() / 8
        sizes = codes * scale.sign() if book.signs == "none" else codes.abs()
        assert (book.index(sizes.view(-1, book.wide)) >= 0).all()
        lost.append(float(((found - w).square() * (1.0 if weight is None else weight)).sum()))
    assert lost[0] * (1 - 1e-5) <= lost[1] <= 1.1 * lost[0]
