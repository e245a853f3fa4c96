"""Who stays and what they become: the refit is the least squares answer, the search beats ranking, both sides count."""

from itertools import combinations

import pytest
import torch

from secateur.maths import masks
from secateur.maths.pruning import Scene
from secateur.maths.rounding import damage


def problem(rows=24, cols=32, seed=0):
    """Weights, and statistics with a large common part."""
    random = torch.Generator().manual_seed(seed)

    def gram(n):
        x = torch.randn(2 * n, n, generator=random) + 1.5 * torch.randn(2 * n, 1, generator=random)
        return x.T @ x / len(x)

    return torch.randn(rows, cols, generator=random), gram(cols), gram(rows)


SIDES = pytest.mark.parametrize("side", ["two", "diagonal", "none"])


def side_of(g, side):
    return {"two": g, "diagonal": g.diagonal(), "none": None}[side]


def half(score):
    return masks.top(score, score.numel() // 2)


@SIDES
def test_the_refit_is_the_best_there_is_under_its_mask(side):
    w, a, g = problem(5, 6)
    scene = Scene.of(w, a, side_of(g, side))
    mask = half(scene.scaled.square())
    values = scene.refitted(mask, steps=60)
    assert not values[~mask].any()
    full = torch.eye(5) if scene.g is None else torch.diag(scene.g) if scene.g.ndim == 1 else scene.g
    metric, stays = torch.kron(full, scene.a).double(), mask.flatten()
    want = torch.linalg.solve(metric[stays][:, stays], metric[stays] @ w.flatten().double())
    assert torch.allclose(values[mask].double(), want, atol=1e-3)
    assert scene.damage(values) == pytest.approx(float(damage(w - values, scene.a, scene.g)), rel=1e-4)


@SIDES
def test_the_search_beats_ranking_and_refitting(side):
    w, a, g = problem()
    scene = Scene.of(w, a, side_of(g, side))
    ranked = scene.refitted(half(scene.scaled.square()), steps=100)
    mask, values = scene.pruned(half)
    assert mask.sum() == mask.numel() // 2 and not values[~mask].any()
    assert scene.damage(values) < 0.9 * scene.damage(ranked)
    plain, _ = scene.pruned(half, turns=0)
    assert torch.equal(plain, half(scene.scaled.square()))


def test_near_the_best_of_all_masks():
    w, a, g = problem(2, 5, seed=3)
    scene = Scene.of(w, a, g)
    found = scene.damage(scene.pruned(half)[1])
    every = []
    for some in combinations(range(10), 5):
        mask = torch.zeros(10, dtype=torch.bool)
        mask[list(some)] = True
        every.append(scene.damage(scene.refitted(mask.view(2, 5), steps=30)))
    assert min(every) * 0.999 <= found <= sorted(every)[12]


def test_both_sides_are_worth_having():
    w, a, g = problem()
    scene = Scene.of(w, a, g)
    alone = Scene.of(w, a, None).pruned(half)[1]
    assert scene.damage(scene.pruned(half)[1]) < 0.8 * scene.damage(alone)


def test_scales_change_nothing_and_silence_is_no_trouble():
    w, a, g = problem()
    mask, values = Scene.of(w, a, g).pruned(half)
    again, other = Scene.of(w, 1e3 * a, 1e-7 * g).pruned(half)
    assert (mask == again).float().mean() > 0.99 and torch.allclose(values, other, atol=0.05)
    for dead in (torch.zeros_like(g), torch.zeros(24)):
        assert torch.isfinite(Scene.of(w, a, dead).pruned(half)[1]).all()
    a[:, 3] = a[3] = 0
    g[:, 5] = g[5] = 0
    _, values = Scene.of(w, a, g).pruned(half)
    assert torch.isfinite(values).all()
