"""Schedules: worked out by hand at their ends and between."""

import pytest

from secateur.parts.schedules import SHAPES, Schedule
from secateur.types import SecateurError


def test_by_hand():
    assert [Schedule("constant", warm=4)(step, 8) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert Schedule("cosine", last=0.2)(4, 8) == pytest.approx(0.6)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_rises_to_one_and_never_again(shape):
    course = Schedule(shape, warm=3, last=0.1)
    shares = [course(step, 20) for step in range(20)]
    assert shares[:4] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0]) and shares[3:] == sorted(shares[3:], reverse=True)
    assert min(shares[3:]) >= 0.1


def test_a_shape_that_nobody_knows():
    with pytest.raises(SecateurError, match="constant, cosine, linear"):
        Schedule("cubic")
