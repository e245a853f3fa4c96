"""The algebra of masks: exact counts, ties by position, nesting, floors, and what brute force says is best."""

from itertools import combinations

import pytest
import torch

from secateur.maths import masks


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scope", [None, (1, 12), (1, 4), (2, 3), (6, 1)])
def test_every_tile_keeps_its_highest(scope):
    score = draw(6, 12)
    tiles = masks.tiled(score, scope or (6, 12))
    kept = tiles.shape[1] // 2
    mask = masks.tiled(masks.top(score, kept, scope), scope or (6, 12))
    assert (mask.sum(1) == kept).all()
    for tile, stays in zip(tiles, mask, strict=True):
        assert tile[stays].min() > tile[~stays].max()
    assert torch.equal(masks.untiled(tiles, 12, scope or (6, 12)), score)


def test_ties_go_to_the_first():
    assert masks.top(torch.zeros(2, 3), 4).tolist() == [[True, True, True], [True, False, False]]
    assert masks.top(torch.tensor([[1.0, 2, 1, 1]]), 2).tolist() == [[True, True, False, False]]
    assert masks.top(torch.zeros(2, 4), 1, (1, 2)).tolist() == [[True, False, True, False]] * 2


def test_all_or_none_and_too_many():
    assert masks.top(draw(2, 3), 6).all() and not masks.top(draw(2, 3), 0).any()
    with pytest.raises(ValueError, match="cannot keep 7 of 6"):
        masks.top(draw(2, 3), 7)
    with pytest.raises(ValueError, match="tiles of 1 x 4 do not fill 2 x 6"):
        masks.top(draw(2, 6), 1, (1, 4))


def test_a_global_ranking_is_the_best_choice_of_so_many():
    layers = [draw(2, 2), draw(1, 4, seed=1)]
    scores = [layer.square() for layer in layers]
    kept = masks.top_together(scores, 3)
    flat = torch.cat([score.flatten() for score in scores])
    best = max(combinations(range(8), 3), key=lambda some: float(flat[list(some)].sum()))
    assert torch.cat([mask.flatten() for mask in kept]).nonzero().flatten().tolist() == sorted(best)


def test_a_floor_is_kept_and_one_ranking_is_enough():
    layers = [0.01 * draw(4, 4).abs(), draw(8, 8, seed=1).abs()]
    plain = masks.top_together(layers, 20)
    held = masks.top_together([masks.lifted(score, 3) for score in layers], 20)
    assert plain[0].sum() == 0 and held[0].sum() == 3 and sum(int(m.sum()) for m in held) == 20
    assert torch.equal(held[0], masks.top(layers[0], 3))
    assert masks.lifted(layers[0], 0) is layers[0] and torch.isinf(masks.lifted(layers[0], 99)).all()


def test_levels_of_one_ranking_are_nested():
    score = torch.randint(0, 4, (5, 8), generator=torch.Generator().manual_seed(0)).float()  # many ties
    few, some, many = masks.nested(score, (3, 11, 40))
    assert not (few & ~some).any() and not (some & ~many).any() and many.all()
    assert torch.equal(some, masks.top(score, 11))


def test_votes():
    a, b, c = (torch.tensor(x, dtype=torch.bool) for x in ([1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]))
    assert torch.equal(masks.vote([a, b, c], 1), a | b | c)
    assert torch.equal(masks.vote([a, b, c], 3), a & b & c)
    assert masks.vote([a, b, c], 2).tolist() == [True, True, True, False]


def test_blocks_stay_or_go_whole():
    score = torch.tensor([[1.0, 1, 0, 3], [1, 1, 0, 0]])
    assert masks.blocks(score, 1, (2, 2)).tolist() == [[True, True, False, False]] * 2
    assert masks.blocks(score, 2, (1, 2)).tolist() == [[True, True, True, True], [False] * 4]


def test_counts():
    assert [masks.count(keep, 10) for keep in (0.0, 0.04, 0.25, 0.5, 1.0)] == [1, 1, 2, 5, 10]
