"""CSKV by its defining properties: nothing shrunk is nothing changed, windows are exact, tails are errors."""

from itertools import product

import pytest
import torch

from secateur.maths.lowrank import Sides, decompose
from secateur.methods.factorize.cskv import Shrunk, asvd, coded, kv_bytes, ranks, seen, whitened


def problem(channels=12, width=24, seed=0):
    random = torch.Generator().manual_seed(seed)
    size = torch.exp(1.5 * torch.randn(width, generator=random))  # some inputs are far larger than others
    x = torch.randn(400, width, generator=random) * size
    return torch.randn(channels, width, generator=random), x


def error(w, x, shrunk: Shrunk):
    return float((shrunk.rebuilt(shrunk.cached(x)) - x @ w.mT).square().mean())


def test_by_hand():
    w = torch.diag(torch.tensor([3.0, 1.0]))
    one = asvd(w, torch.ones(2), 1)
    assert (one.up @ one.down).flatten().tolist() == pytest.approx([3, 0, 0, 0], abs=1e-5)
    louder = asvd(w, torch.tensor([1.0, 100.0]), 1)  # the second input is ten times as loud after the square root
    assert (louder.up @ louder.down).flatten().tolist() == pytest.approx([0, 0, 0, 1], abs=1e-5)


def test_all_of_the_rank_changes_nothing():
    w, x = problem()
    for full in (asvd(w, x.abs().mean(0), 12), whitened(w, x.mT @ x / len(x), 12)):
        assert torch.allclose(full.rebuilt(full.cached(x)), x @ w.mT, rtol=1e-3, atol=1e-3)


def test_alike_inputs_make_it_the_plain_svd_and_its_error_the_tail():
    w, _ = problem()
    one = asvd(w, torch.ones(24), 5)
    tail = torch.linalg.svdvals(w)[5:].square().sum()
    assert float((w - one.up @ one.down).square().sum()) == pytest.approx(float(tail), rel=1e-4)


@pytest.mark.parametrize("rank", [2, 5, 9])
def test_whitening_is_the_least_of_what_the_paper_trains_for(rank):
    w, x = problem()
    best, size = whitened(w, x.mT @ x / len(x), rank), x.abs().mean(0)
    assert error(w, x, best) < error(w, x, asvd(w, size, rank)) < error(w, x, asvd(w, size, rank, power=0))
    down, up = (t.clone().requires_grad_() for t in (best.down, best.up))
    loss = ((x @ down.mT) @ up.mT - x @ w.mT).square().mean()
    loss.backward()
    for side in (down, up):
        assert float(side.grad.norm() * side.detach().norm()) < 1e-2 * float(loss.detach())


def test_a_tokens_own_window_is_exact():
    exact, rebuilt = torch.arange(10.0)[:, None], -torch.arange(10.0)[:, None]
    assert torch.equal(seen(exact, rebuilt, 16), exact)
    assert seen(exact, rebuilt, 4).flatten().tolist() == [0, -1, -2, -3, -4, -5, -6, -7, 8, 9]
    assert seen(exact[:8], rebuilt[:8], 4).flatten().tolist() == [0, -1, -2, -3, 4, 5, 6, 7]


def test_bytes():
    full = kv_bytes([64, 64], [64, 64], 1025, 32)
    assert kv_bytes([13, 13], [64, 64], 1025, 32) / full == pytest.approx(0.2, abs=0.01)
    assert kv_bytes([13, 13], [64, 64], 1025, 32, bits=4) / full == pytest.approx(0.05, abs=0.01)
    assert kv_bytes([13, 13], [64, 64], 20, 32) == 20 * 128 * 2  # the first window is exact


def test_codes_keep_both_ends_and_halve_their_error_with_every_bit():
    c = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    for over in (-2, -1):
        held = coded(c, 4, over)
        assert torch.allclose(held.amax(over), c.amax(over), atol=1e-5)
        assert torch.allclose(held.amin(over), c.amin(over), atol=1e-5)
        assert float((held - c).abs().max()) > 1.5 * float((coded(c, 5, over) - c).abs().max())


def test_shares_of_layers_against_brute_force():
    curves = []
    for seed, scale in enumerate((1.0, 5.0, 0.2)):
        w, x = problem(6, 8, seed)
        curves.append(decompose(scale * w, Sides.of(x.mT @ x / len(x), None)))
    for most in (5, 9, 14):
        found = ranks(curves, most)
        every = [some for some in product(range(1, 7), repeat=3) if sum(some) <= most]
        least = min(sum(c.damage(k) for c, k in zip(curves, some, strict=True)) for some in every)
        assert sum(found) <= most
        assert sum(c.damage(k) for c, k in zip(curves, found, strict=True)) == pytest.approx(least)
