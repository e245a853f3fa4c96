"""Groups of points: by hand on a line, and the laws of k-means and of the rounds of facility location."""

import pytest
import torch

from secateur.maths.clustering import directions, kmeans, nearest, rounds, scaled


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_columns_count_alike_also_for_others():
    x = torch.tensor([[1.0, 1e6, 7.0], [3.0, 3e6, 7.0]])
    assert scaled(x).tolist() == [[-1, -1, 0], [1, 1, 0]]
    assert scaled(torch.tensor([[5.0, 2e6, 8.0]]), x).tolist() == [[3, 0, 0]], "as they are among the others"
    assert scaled(torch.ones(3, 2)).tolist() == torch.zeros(3, 2).tolist()
    assert directions(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).flatten().tolist() == pytest.approx([0.6, 0.8, 0, 0])


def test_the_nearest_centre_by_hand():
    at, far = nearest(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[4.0], [0.0], [2.0]]))
    assert at.tolist() == [1, 1, 0] and far.tolist() == [0, 1, 1], "of two that are as near the first"


def test_a_few_points_are_their_own_centres():
    x = torch.randn(4, 3, generator=seeded())
    centres, group = kmeans(x, 9, seeded())
    assert torch.equal(centres, x) and group.tolist() == [0, 1, 2, 3]


def test_four_heaps_are_found():
    kinds = torch.arange(80) % 4
    x = torch.eye(6)[kinds] * 5 + torch.randn(80, 6, generator=seeded()) * 0.1
    centres, group = kmeans(x, 4, seeded(1))
    assert len({(int(a), int(b)) for a, b in zip(kinds, group, strict=True)}) == 4
    for k in range(4):
        torch.testing.assert_close(centres[k], x[group == k].mean(0))


@pytest.mark.parametrize("seed", range(3))
def test_the_laws_of_means(seed):
    x = torch.randn(200, 5, generator=seeded(seed))
    centres, group = kmeans(x, 12, seeded(seed))
    again, same = kmeans(x, 12, seeded(seed))
    assert torch.equal(centres, again) and torch.equal(group, same), "the same seed, the same groups"
    at, _ = nearest(x, centres)
    assert torch.equal(at, group) and len(group.unique()) == 12, "each with its nearest, and none is empty"


def test_points_that_are_all_alike_can_be_grouped():
    centres, group = kmeans(torch.ones(10, 2), 3, seeded())
    assert torch.equal(centres, torch.ones(3, 2)) and group.max() < 3


def test_rounds_by_hand():
    alike = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.7, 0.6, 0.5, 0.4]])
    found = [(some.tolist(), value) for some, value in rounds(alike)]
    assert [some for some, _ in found] == [[0], [1], [2], [3]], "two may take the same one"
    assert [value for _, value in found] == pytest.approx([0.8, 0.7, 0.3, 0.2])


@pytest.mark.parametrize("k", [1, 7])
def test_the_laws_of_rounds(k):
    alike = torch.rand(k, 60, generator=seeded(k))
    found = list(rounds(alike))
    taken = torch.cat([some for some, _ in found])
    assert sorted(taken.tolist()) == list(range(60)), "each once, and all in the end"
    assert all(1 <= len(some) <= k for some, _ in found)
    values = [value for _, value in found]
    assert values == sorted(values, reverse=True), "what is taken becomes less and less alike"
    if k == 1:
        assert torch.equal(taken, alike[0].argsort(descending=True)), "with one centre it is a ranking"
