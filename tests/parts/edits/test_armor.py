"""The edit `armor`: what it stores is what it says, and its short search knows what the long one will damage."""

import pytest
import torch

from secateur.parts import edits
from secateur.parts.edits.armor import Armor, offered
from secateur.types import Matrix, PlanError, Unit


def problem(rows=48, cols=64):
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, cols, generator=random), torch.randn(300, rows, generator=random)
    return torch.randn(rows, cols, generator=random), x.T @ x / 300, y.T @ y / 300


def unit(rows=48, cols=96):
    return Unit("u", "linear", (Matrix("u.weight", rows, cols, "u"),))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_payload_is_what_was_announced_and_reads_back(stored, dtype):
    w, a, g = problem()
    edit = Armor(8)
    done = edit.grid(dtype).settle(w, a, g, 2)
    coded = done.grid.code(done.values)
    tensors = stored(edit, coded, 48, 64)
    assert all(
        tensors[name].dtype == getattr(torch, dtype) for name, part in edit.payload(48, 64).items() if not part.levels
    )
    assert torch.equal(edit.decode(tensors), coded.values)


def test_the_short_search_expects_what_the_long_one_finds():
    w, a, g = problem(96, 128)
    forms = [edit.grid() for edit in (Armor(8), Armor(4))]
    for form, said in zip(forms, forms[0].losses(w, a, g, forms), strict=True):
        assert said == pytest.approx(form.settle(w, a, g, 2).damage, rel=0.35)


def test_what_makes_no_sense_is_said():
    with pytest.raises(PlanError, match="whole groups of four"):
        Armor(6)
    assert "do not divide into blocks of 32" in str(Armor(32).refuses(unit()))
    assert "hold more than a quarter" in str(Armor(16).refuses(unit()))
    assert Armor(8).refuses(unit()) is None
    assert edits.parse(repr(Armor(32))) == Armor(32)
    assert set(offered([])) == {Armor(8), Armor(16), Armor(32), Armor(128)}
