"""The edit `rank`: what it stores is what it says, and it says what it saves."""

from __future__ import annotations

import pytest
import torch

from secateur.export.packed import Packed
from secateur.parts import edits
from secateur.parts.edits.int import Int
from secateur.parts.edits.rank import Rank, offered
from secateur.types import Matrix, PlanError, Unit

GRIDS = ("", "int(bits=4, group=32)", "int(bits=3, group=16, symmetric=False, scale='fp8', zero='fp8')", "fp8()")


def unit(rows=64, cols=96):
    return Unit("u", "linear", (Matrix("u.weight", rows, cols, "u"),))


@pytest.mark.parametrize("then", GRIDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_payload_is_what_was_announced_and_reads_back(stored, then, dtype):
    torch.manual_seed(0)
    edit = Rank(0.5, then)
    w, x, y = torch.randn(64, 96), torch.randn(200, 96), torch.randn(200, 64)
    done = edit.grid(dtype).settle(w, x.T @ x / 200, y.T @ y / 200, 2)
    coded = done.grid.code(done.values)
    tensors = stored(edit, coded, 64, 96)
    assert torch.allclose(edit.decode(tensors), coded.values, atol=1e-5)
    left, right = edit.factors(tensors)
    assert left.shape == (19, 64) and right.shape == (19, 96)


def test_bytes_and_multiplications_fall_to_the_share():
    edit, one = Rank(0.25), unit(512, 2048)
    assert edit.flops(one.matrices[0]) / one.size == pytest.approx(0.25, abs=0.01)
    assert edit.cost(one)["bytes"] == 2 * edit.flops(one.matrices[0])
    assert edit.cost(one)["bytes"] <= 0.25 * 2 * one.size
    expert = Matrix("u.weight", 512, 2048, "u", index=3)
    assert edit.flops(expert) == expert.size  # put together before it multiplies


def test_it_is_written_and_read_like_any_edit():
    for then in GRIDS:
        assert edits.parse(repr(Rank(0.25, then))) == Rank(0.25, then)
    assert repr(Rank(0.25)) == "rank(keep=0.25)"


def test_what_makes_no_sense_is_said():
    with pytest.raises(PlanError, match="not a share"):
        Rank(1.0)
    with pytest.raises(PlanError, match="no numbers on a grid"):
        Rank(0.5, "rank(keep=0.5)")
    with pytest.raises(PlanError, match="no numbers on a grid"):
        Rank(0.5, "channels(keep=0.5)")
    assert "saves anything" in str(Rank(0.5).refuses(unit(1, 96)))
    assert "factors of 96" in str(Rank(0.5, "int(bits=4, group=64)").refuses(unit()))
    assert Rank(0.5, "int(bits=4, group=32)").refuses(unit()) is None


def test_menus_offer_every_share_plain_and_on_one_grid_for_each_number_of_bits():
    on_menu = offered(Packed().edits())
    assert {edit.then for edit in on_menu if edit.then} == {edit.then for edit in on_menu if edit.keep == 0.25} - {""}
    assert {edit.inner.bits for edit in on_menu if edit.then} == {3, 4, 5, 8}
    assert offered([]) == tuple(Rank(keep) for keep in sorted({edit.keep for edit in on_menu}, reverse=True))
    assert offered([Int(4, 64)])[1] == Rank(0.75, "int(bits=4, group=64)")
