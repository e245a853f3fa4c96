"""Numbers of 16 bits: the nearest, by hand; nothing beyond the largest; the damage is that of what was lost."""

from __future__ import annotations

import pytest
import torch

from secateur.maths.forms import is_form
from secateur.maths.halved import Halved
from secateur.maths.rounding import damage
from secateur.parts.edits.half import Half


def test_by_hand():
    w = torch.tensor([[1.0, 2049.0], [1e6, -1e6]])  # above 2048 halves are two apart, and ties go to the even
    done = Halved().settle(w, torch.eye(2), None, 2)
    assert done.values.tolist() == [[1.0, 2048.0], [65504.0, -65504.0]]
    assert done.damage == pytest.approx(0.5 * (1 + 2 * (1e6 - 65504) ** 2))


def test_what_is_coded_is_what_readers_see():
    w = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    edit, a, g = Half(), torch.eye(10), torch.rand(6)
    grid = edit.grid("bfloat16")
    assert is_form(grid)
    done = grid.settle(w, a, g, 2)
    coded = done.grid.code(done.values)
    assert torch.equal(edit.decode(coded.tensors), coded.values) and torch.equal(coded.values, w.half().float())
    (part,) = edit.payload(6, 10).values()
    assert part.shape == coded.tensors["values"].shape and part.bits == 16 * w.numel()
    assert grid.losses(w, a, g, [grid]) == [done.damage] == [pytest.approx(float(damage(w - w.half(), a, g)))]
