"""Networks of one shape, by hand: what they lose, told to parts and blocks, and beside rounding."""

from __future__ import annotations

import math

import pytest
import torch

from secateur.cut.shapes.even import Even, Shape, _added
from secateur.maths.channels import Removal
from secateur.parts.correction import Correction
from secateur.types import Matrix, Side, Unit


def a_removal(*damage: float) -> Removal:
    return Removal(torch.arange(len(damage)), torch.tensor(damage))


def units() -> tuple[Unit, ...]:
    return tuple(
        Unit(
            f"{at}.down",
            "linear",
            (Matrix(f"{at}.down", 2, 4, "x"),),
            at,
            side=Side(f"{at}.mlp", "channels", per=((1,),)),
        )
        for at in range(3)
    )


@pytest.fixture
def seen() -> Even:
    """Three blocks of four channels; what the last of them mixes matters twice as much."""
    removals = {"0.mlp": a_removal(1, 2, 3, 4), "1.mlp": a_removal(1, 2, 3, 4), "2.mlp": a_removal(2, 4, 6, 8)}
    parts = {"channels": [(f"{at}.mlp", at) for at in range(3)]}
    known = {("channels", 2): 0.16, ("channels", 3): 0.04}
    return Even(units(), parts, removals, known, (1, 2), (0.5, 0.8))


def test_a_loss_is_told_by_the_second_order(seen):
    assert seen.lost("channels", 2) == pytest.approx(0.16) and seen.lost("channels", 3) == pytest.approx(0.04)
    # beyond what was measured straight on in log-log: twice the second order, four times the loss
    assert seen.lost("channels", 1) == pytest.approx(0.16 * (3 / 2) ** 2)
    assert [seen.share(f"{at}.mlp", "channels", 2) for at in range(3)] == [0.25, 0.25, 0.5]
    blocks = seen.blocks(Correction())
    assert blocks == {1: pytest.approx(0.5), 2: pytest.approx(0.3)}
    # a block that is gone loses no channels
    assert seen.total(Shape((("channels", 2),), 1), Correction()) == pytest.approx(0.5 + 0.16 * 0.75)


def test_beside_rounding(seen):
    """Half the channels leave a half, a half and three quarters of what rounding damages, of 1, 1 and 2."""
    rounding = {"0.down": [0, 0.2, 0.5, 0.8, 1], "1.down": [0, 0.2, 0.5, 0.8, 1], "2.down": [0, 0.3, 0.75, 0.9, 1]}
    shape = Shape((("channels", 2),))
    found = (Shape(), 4.0), (shape, 0.5 + 0.5 + 1.5 + 2 * 0.16)
    of = Even(
        seen.units, seen.parts, seen.removals, seen.known, rounding=rounding,
        expected={"0.down": 1.0, "1.down": 1.0, "2.down": 2.0}, rounded=found, together=((shape, 0.16),),
    )  # fmt: skip
    assert of.scale(Correction())[0] == pytest.approx(1.0)
    assert of.scale_rounded(Correction())[0] == pytest.approx(2.0)
    assert seen.scale_rounded(Correction()) == seen.scale(Correction()) == (1.0, 0.5)


def test_blocks_between_those_that_were_measured():
    """As they lose by themselves; a measurement that does not grow is none."""
    assert _added([0.1, 0.1, 0.3], {1: 0.1, 3: 0.9}) == pytest.approx((0.1, 0.3, 0.9))
    assert _added([0.1, 0.2, 0.2], {1: 0.1, 2: 0.05, 3: 0.5}) == pytest.approx((0.1, 0.3, 0.5))
    assert _added([], {}) == () and math.isclose(_added([0.2], {1: 0.2})[0], 0.2)
