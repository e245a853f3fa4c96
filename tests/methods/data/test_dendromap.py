"""The map of examples: by hand on five points, and the laws of trees, clusters and areas. What a cut leaves of it is
looked at in `tests/front_door/test_cut.py`, what the page makes of it in `tests/report/test_examples.py`."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.methods.data.dendromap import central, scaled, tree

#: two pairs and one alone: 0 and 1, 2 and 3, then 4 to the second pair
LINE = np.array([[0.0], [1.0], [10.0], [12.0], [17.0]])


def test_by_hand():
    made = tree(LINE)
    assert made.children == ((0, 1), (2, 3), (4, 6), (5, 7)) and made.counts == [1, 1, 1, 1, 1, 2, 2, 3, 5]
    assert made.root == 8 and made.below(7) == (4, 6) and made.below(3) == ()
    # merging clusters whose means lie d apart: sqrt(2 ab / (a + b)) d
    spread = LINE.std()
    far = [1.0, 2.0, np.sqrt(4 / 3) * 6, np.sqrt(12 / 5) * 12.5]
    assert made.distance == pytest.approx([d / spread for d in far])
    assert [made.visible(k) for k in (1, 2, 3, 9)] == [[8], [5, 7], [5, 4, 6], [0, 1, 4, 2, 3]]
    assert made.visible(2, 7) == [4, 6] and made.members(7) == [4, 2, 3] and made.members(8) == [0, 1, 4, 2, 3]
    assert made.means([1, 3, 10, 20, 6])[5:] == [2, 15, 12, 8]
    assert made.worst([1, 3, 10, 20, 6], 3) == [6, 4, 5] and made.worst([1, 3, 10, 20, 6], 3, least=2) == [6, 5]
    assert central(made, LINE) == [0, 1, 2, 3, 4, 0, 2, 3, 2], "the mean of all is 8, that of the three 13"
    areas = made.areas([5, 4, 6], 50.0, 20.0)
    assert areas[5] == (0, 0, 20, 20) and areas[7] == (20, 0, 30, 20)
    assert areas[4] == pytest.approx((20, 0, 10, 20)) and areas[6] == pytest.approx((30, 0, 20, 20)) and 2 not in areas


def test_columns_count_alike_and_one_that_says_nothing_does_not_count():
    x = scaled(np.array([[1.0, 1e6, 7.0], [3.0, 3e6, 7.0]]))
    assert x.tolist() == [[-1, -1, 0], [1, 1, 0]]
    assert scaled(np.ones((3, 2))).tolist() == np.zeros((3, 2)).tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 60])
def test_the_laws_of_a_map(n):
    draw = np.random.default_rng(n)
    made, values = tree(draw.normal(size=(n, 5))), draw.random(n)
    means, counts = made.means(values), made.counts
    assert made.n == n and counts[made.root] == n
    assert sorted(made.members(made.root)) == list(range(n))
    before: set[int] = set()
    for k in range(1, n + 2):
        seen = made.visible(k)
        parts = [set(made.members(node)) for node in seen]
        assert len(seen) == min(k, n) and set().union(*parts) == set(range(n))
        assert sum(map(len, parts)) == n, "a partition"
        assert len(before - set(seen)) <= 1, "one more cluster opens one node"
        places = made.areas(seen, 300.0, 200.0)
        for node in seen:
            assert places[node][2] * places[node][3] == pytest.approx(60000 * counts[node] / n)
            assert means[node] == pytest.approx(float(np.mean(values[made.members(node)])))
        for node in set(places) - set(seen):
            assert sum(w * h for *_, w, h in (places[one] for one in made.below(node))) == pytest.approx(
                places[node][2] * places[node][3]
            )
        before = set(seen)
    up = {child: at for at, pair in enumerate(made.children, n) for child in pair}
    for child, parent in up.items():
        assert child < n or made.distance[child - n] <= made.distance[parent - n] + 1e-9, "wider towards the root"


def test_the_worst_is_held_against_chance():
    draw = np.random.default_rng(3)
    kinds = np.repeat(np.arange(4), 15)
    made = tree(draw.normal(size=(60, 6)) * 0.1 + np.eye(6)[kinds] * 3)
    for values, real in ((kinds == 2, True), (draw.random(60), False)):
        worst = made.means(values)[made.worst(values, 4)[0]]
        mean, most = made.by_chance(values, 4)
        assert np.mean(values) < mean < most and (worst > most) == real
    assert made.by_chance(np.ones(60), 4) == (1.0, 1.0)


def test_like_lies_beside_like_and_the_same_is_the_same():
    draw = np.random.default_rng(0)
    kinds = np.repeat(np.arange(4), 10)
    x = draw.normal(size=(40, 6)) * 0.1 + np.eye(6)[kinds] * 3
    found = [set(kinds[tree(x).members(node)]) for node in tree(x).visible(4)]
    assert sorted(map(len, found)) == [1] * 4 and set().union(*found) == set(range(4))
    assert tree(np.ones((5, 3))).n == 5, "examples that are all alike can be drawn, too"
