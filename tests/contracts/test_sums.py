"""The law of the role: two halves add up to the whole, in any order, with weights or without.

Sums are collected by path: every class of `maths/sums.py` that has `update` and can be added.
"""

import inspect
from functools import reduce
from operator import add

import pytest
import torch

from secateur.maths import sums

CLASSES = [
    kind
    for _, kind in inspect.getmembers(sums, inspect.isclass)
    if hasattr(kind, "update") and hasattr(kind, "__add__")
]
WIDTH = 5
#: how to start each sum, and what it is fed: one way per entry
STARTS = {
    "Gram": [lambda: sums.Gram.empty(WIDTH), lambda: sums.Gram.empty(WIDTH, diagonal=True)],
    "Spread": [sums.Spread],
}


def told(total):
    """Everything a sum says, as numbers."""
    mean = total.mean if isinstance(total.mean, float) else total.mean().flatten().tolist()
    rest = [getattr(total, name) for name in ("tokens", "n", "weight", "relative_error") if hasattr(total, name)]
    return [*(mean if isinstance(mean, list) else [mean]), *rest]


def batches(kind, weighted):
    random = torch.Generator().manual_seed(0)
    for tokens in (3, 1, 4, 1, 5, 9):
        x, weight = torch.randn(tokens, WIDTH, generator=random), torch.rand(tokens, generator=random) + 0.1
        if kind == "Spread":
            yield float(x.square().mean()), float(weight.sum()) if weighted else None
        else:
            yield x, weight if weighted else None


EVERY = pytest.mark.parametrize(
    ("kind", "start"), [(kind.__name__, start) for kind in CLASSES for start in STARTS.get(kind.__name__, [None])]
)
WEIGHTED = pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])


def test_every_sum_is_known_here():
    assert sorted(STARTS) == sorted(kind.__name__ for kind in CLASSES)


@WEIGHTED
@EVERY
def test_two_halves_add_up_to_the_whole(kind, start, weighted):
    fed = [*batches(kind, weighted)]
    whole = start()
    for batch in fed:
        whole.update(*batch)
    for cut in range(len(fed) + 1):
        halves = start(), start()
        for i, batch in enumerate(fed):
            halves[i >= cut].update(*batch)
        assert told(halves[0] + halves[1]) == pytest.approx(told(whole), rel=1e-5)
        assert told(halves[1] + halves[0]) == pytest.approx(told(whole), rel=1e-5)


@WEIGHTED
@EVERY
def test_as_many_workers_as_batches(kind, start, weighted):
    whole, parts = start(), []
    for batch in batches(kind, weighted):
        whole.update(*batch)
        parts.append(start())
        parts[-1].update(*batch)
    assert told(reduce(add, parts)) == pytest.approx(told(whole), rel=1e-5)


@WEIGHTED
@EVERY
def test_adding_changes_neither_half(kind, start, weighted):
    one, other = start(), start()
    for i, batch in enumerate(batches(kind, weighted)):
        (one, other)[i % 2].update(*batch)
    before = told(one), told(other)
    both = one + other
    both.update(*next(batches(kind, weighted)))
    assert (told(one), told(other)) == before


@EVERY
def test_a_weight_of_one_is_no_weight(kind, start):
    plain, ones = start(), start()
    for x, _ in batches(kind, False):
        plain.update(x)
        ones.update(x, 1.0 if kind == "Spread" else torch.ones(len(x)))
    assert told(ones) == pytest.approx(told(plain), rel=1e-6)


@WEIGHTED
def test_the_diagonal_is_that_of_the_full_matrix(weighted):
    full, diagonal = sums.Gram.empty(WIDTH), sums.Gram.empty(WIDTH, diagonal=True)
    for x, weight in batches("Gram", weighted):
        full.update(x, weight)
        diagonal.update(x, weight)
    torch.testing.assert_close(diagonal.mean(), full.mean().diagonal())
    assert diagonal.tokens == full.tokens == 23
