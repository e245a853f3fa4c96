"""Sparse matrices as a form: exact counts, codes that read back, a promise that holds, and grids under a mask."""

from math import comb

import pytest
import torch

from secateur.maths.factor import damped
from secateur.maths.grids.affine import Affine
from secateur.maths.grids.floats import Float
from secateur.maths.patterns import Pattern
from secateur.maths.rounding import damage, nearest
from secateur.maths.settle import settle
from secateur.maths.sparse import PinnedGrid, Sparse

PATTERNS = [
    Pattern(0.5),
    Pattern(0.3),
    Pattern(n=2, m=4),
    Pattern(n=4, m=8),
    Pattern(n=1, m=16),
    Pattern(0.5, wide=8),
    Pattern(0.4, high=4, wide=4),
]


def problem(rows=32, cols=64, seed=0):
    random = torch.Generator().manual_seed(seed)

    def gram(n):
        x = torch.randn(2 * n, n, generator=random) + torch.randn(2 * n, 1, generator=random)
        return x.T @ x / len(x)

    return 0.05 * torch.randn(rows, cols, generator=random), gram(cols), 0.01 * gram(rows)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_mask_has_its_count_and_is_read_back(pattern):
    score = problem()[0].square()
    mask = pattern.mask(score)
    assert int(mask.sum()) == pattern.kept(*score.shape)
    assert abs(float(mask.float().mean()) - pattern.share) < 0.02
    codes = pattern.codes(mask)
    assert tuple(codes.shape) == pattern.shape(*score.shape)
    assert int(codes.min()) >= 0 and int(codes.max()) < pattern.levels
    assert torch.equal(pattern.spread(codes), mask)
    if pattern.m:
        assert (mask.view(-1, pattern.m).sum(1) == pattern.n).all()
        assert pattern.levels == comb(pattern.m, pattern.n)


@pytest.mark.parametrize("sides", [0, 1, 2])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_settled_is_what_is_read(pattern, sides):
    w, a, g = problem()
    done = Sparse(pattern).settle(w, a, g, sides)
    mask = done.grid.mask
    assert int((done.values != 0).sum()) <= pattern.kept(*w.shape)
    coded = done.grid.code(done.values)
    assert torch.equal(coded.values, done.values)
    read = torch.zeros_like(w).masked_scatter(pattern.spread(coded.tensors["mask"]), coded.tensors["values"].float())
    assert torch.equal(read, done.values) and torch.equal(mask, pattern.spread(coded.tensors["mask"]))
    metric = damped(a.double(), 0.01).float(), damped(g.double(), 0.01).float()
    assert done.damage == pytest.approx(float(damage(w - done.values, *metric)), rel=1e-4)


def test_more_sides_do_less_damage():
    w, a, g = problem()
    found = [Sparse(Pattern(0.5)).settle(w, a, g, sides).damage for sides in (0, 1, 2)]
    assert found[0] > found[1] > found[2]


def test_what_is_promised_is_about_what_comes():
    w, a, g = problem()
    forms = [Sparse(pattern) for pattern in (*PATTERNS, Pattern(0.9), Pattern(0.7))]
    forms += [Sparse(Pattern(0.5), grid=Affine(bits, 32)) for bits in (4, 8)]
    promised = forms[0].losses(w, a, g, forms)
    for form, promise in zip(forms, promised, strict=True):
        if form.pattern.high == form.pattern.wide == 1 and form.pattern.share >= 0.25:
            assert 0.5 < promise / form.settle(w, a, g, 2).damage < 2, form
    by_share = dict(zip((form.pattern.share for form in forms[-4:-2]), promised[-4:-2], strict=True))
    assert by_share[0.9] < by_share[0.7] < promised[0] < promised[1]
    assert promised[-2] > promised[-1] >= promised[0]
    assert forms[0].losses(w, a, torch.zeros_like(g), forms) == [0.0] * len(forms)


def test_probes_are_whole_matrices_of_known_damage():
    w, a, g = problem()
    forms = [Sparse(Pattern(share)) for share in (0.9, 0.5, 0.2)] + [Sparse(Pattern(n=2, m=4))]
    losses, probes = forms[0].losses_and_probes(w, a, g, forms)
    assert losses == forms[0].losses(w, a, g, forms) and set(probes) == {150, 120, 250}
    metric = damped(a.double(), 0.01).float(), damped(g.double(), 0.01).float()
    for found, values in probes.values():
        assert found == pytest.approx(float(damage(w - values, *metric)), rel=1e-4)


@pytest.mark.parametrize("grid", [Affine(4, 16), Affine(2, 0), Float("fp8"), Float("mxfp4"), Float("nvfp4")], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS[:3], ids=str)
def test_pruned_then_coded(grid, pattern):
    w, a, g = problem()
    done = Sparse(pattern, grid=grid).settle(w, a, g, 2)
    coded = done.grid.code(done.values)
    assert torch.equal(coded.values, done.values) and not done.values[~done.grid.mask].any()
    assert coded.tensors["codes"].shape == (pattern.kept(*w.shape),)
    assert done.damage > Sparse(pattern).settle(w, a, g, 2).damage


def test_feedback_under_a_mask_gains_and_moves_nobody_who_is_gone():
    w, a, g = problem()
    pattern = Pattern(0.5)
    sparse = Sparse(pattern).settle(w, a, g, 2)
    grid = PinnedGrid(Affine(3, 16), sparse.grid.mask)
    plain = nearest(sparse.values, grid.fit(sparse.values, a.diagonal()))
    swept = settle(sparse.values, grid, a, g)
    assert not plain[~sparse.grid.mask].any() and not swept.values[~sparse.grid.mask].any()
    assert swept.damage < 0.7 * float(damage(sparse.values - plain, a, g))


def test_scales_are_fitted_to_those_that_stay():
    w = torch.tensor([[100.0, 1.0, -2.0, 3.0]])
    mask = torch.tensor([[False, True, True, True]])
    fitted = PinnedGrid(Affine(4, 4), mask).fit(w * mask, torch.ones(4))
    assert float(fitted.scale.abs().max()) < 0.5
    assert (nearest(w * mask, fitted) - w * mask).abs().max() < 0.3
