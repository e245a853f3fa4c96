"""ARMOR by its defining properties: its group step is the best of all masks, its start NoWag-P, its core always 2:4."""

from itertools import combinations

import pytest
import torch

from secateur.maths.wrapped import TWO_OF_FOUR, Wrapped, Wrapping, loss, product, regrouped
from secateur.methods.factorize.armor import armor, nowag


def problem(rows=16, cols=24, block=8, seed=0):
    random = torch.Generator().manual_seed(seed)
    w, h = torch.randn(rows, cols, generator=random), torch.rand(cols, generator=random) + 0.1
    left, right = (
        torch.eye(block) + 0.2 * torch.randn(n // block, block, block, generator=random) for n in (rows, cols)
    )
    return w, h, Wrapped(left, w * TWO_OF_FOUR.mask(w.square() * h), right)


def test_by_hand():
    score = torch.tensor([[1.0, 5, 3, 4, 0, 0, 0, 2]])
    assert TWO_OF_FOUR.mask(score).int().tolist() == [[0, 1, 0, 1, 1, 0, 0, 1]]
    blocks = torch.tensor([[[2.0, 0], [0, 3]]])
    out = product(blocks, torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]), torch.eye(2).repeat(2, 1, 1))
    assert out.tolist() == [[2, 2, 0, 0], [0, 0, 3, 3]]


def test_wrappers_are_block_diagonal_matrices():
    w, _, now = problem()
    assert torch.allclose(now.values, torch.block_diag(*now.left) @ now.core @ torch.block_diag(*now.right), atol=1e-5)
    assert now.numbers == w.numel() // 2 + 16 * 8 + 24 * 8


@pytest.mark.parametrize("seed", range(3))
def test_the_group_step_is_the_best_of_all_masks_and_never_raises_the_loss(seed):
    w, h, now = problem(seed=seed)
    random = torch.Generator().manual_seed(seed)
    row, group = torch.randint(8, (2, 3), generator=random), torch.randint(2, (2, 3), generator=random)
    new = regrouped(now, w, h, row, group)
    assert loss(new, w, h) <= loss(now, w, h) + 1e-7
    # by brute force: each group on its own, every mask, by least squares on the whole matrix
    p, q = 1, 2
    i, at = 8 * p + int(row[p, q]), 8 * q + 4 * int(group[p, q])
    tried = []
    for pair in combinations(range(4), 2):
        columns = []
        for k in pair:
            unit = torch.zeros_like(w)
            unit[i, at + k] = 1
            columns.append((product(now.left, unit, now.right) * h.sqrt()).flatten())
        rest = new.core.clone()
        rest[i, at : at + 4] = 0
        target = ((w - product(now.left, rest, now.right)) * h.sqrt()).flatten()
        basis = torch.stack(columns, 1)
        x = torch.linalg.lstsq(basis.double(), target.double()[:, None]).solution
        tried.append(float((target - (basis.double() @ x).flatten()).square().sum()))
    mine = float(((w - new.values).square() @ h).sum())
    assert mine == pytest.approx(min(tried), rel=1e-5)


def test_the_start_is_nowag_and_the_end_no_worse():
    w, h, _ = problem()
    start = nowag(w, h, 8)
    columns = w.norm(dim=0)
    plain = w / columns
    kept = w * TWO_OF_FOUR.mask((plain / plain.norm(dim=1, keepdim=True)).square() * h)
    assert torch.allclose(start.values, kept, atol=1e-5)
    end = Wrapping(8, steps=60, rate=0.01)(w, h, torch.Generator().manual_seed(0))
    rows = plain.norm(dim=1, keepdim=True)
    first, last = (float((((one.values - w) / columns / rows).square() @ h).sum()) for one in (start, end))
    assert last < 0.7 * first
    assert (end.core.unflatten(1, (-1, 4)) != 0).sum(-1).max() <= 2


def test_the_papers_knobs():
    assert (armor.block, armor.steps, armor.rate) == (128, 5000, 1e-4)


def test_the_same_seed_is_the_same_matrix():
    w, h, _ = problem()
    one, two = (Wrapping(8, 10, 0.01)(w, h, torch.Generator().manual_seed(3)).values for _ in range(2))
    assert torch.equal(one, two)
