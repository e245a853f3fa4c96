"""Pictures that are mirrored and moved: by hand, the same again for the same pass, others for another."""

from __future__ import annotations

import pytest
import torch

from secateur.model.fit import Moment
from secateur.model.pictures import Pictures
from secateur.parts.varied import mirrored, moved, parse, varied
from secateur.types import DataError

X = torch.arange(2 * 3 * 3).reshape(2, 3, 3, 1).to(torch.uint8) + 1


def test_by_hand():
    both = mirrored(X, torch.tensor([False, True]))
    assert torch.equal(both[0], X[0]) and both[1, 0, :, 0].tolist() == [12, 11, 10]
    down = moved(X, torch.tensor([[1, 0], [0, -1]]))
    assert down[0, :, :, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert down[1, :, :, 0].tolist() == [[11, 12, 0], [14, 15, 0], [17, 18, 0]] and down.dtype == X.dtype
    assert torch.equal(moved(X, torch.zeros(2, 2, dtype=torch.long)), X)


def test_chance_hangs_on_the_pass():
    some = Pictures(torch.rand(40, 8, 8, 3), torch.arange(40))
    vary = varied(parse("flip, shift:2"), some)
    first, again = (vary(Moment(3, 9, seed=1), some) for _ in range(2))
    other = vary(Moment(3, 9, part=1, seed=1), some)
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)
    assert torch.equal(first.labels, some.labels) and first.x.shape == some.x.shape
    kept = sum(torch.equal(a, b) for a, b in zip(first.x, some.x, strict=True))
    assert kept < 10, "one of fifty stays as it was"


@pytest.mark.parametrize("asked", ["turn", "flip:2", "shift:x", "shift:-1"])
def test_what_is_not_known_is_said(asked):
    with pytest.raises(DataError, match="cannot be varied by"):
        parse(asked)


def test_examples_without_height_and_width_are_refused():
    assert parse("") == {} and parse("flip,shift") == {"flip": 1, "shift": 4}
    for shape in ((5, 49, 10), (5, 3, 3, 1)):
        with pytest.raises(DataError, match="cannot be varied so"):
            varied({"shift": 4}, Pictures(torch.zeros(shape), torch.zeros(5)))
