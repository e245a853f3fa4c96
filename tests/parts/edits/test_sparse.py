"""The edit: what can be said, what it costs to the byte, and that what is stored is what is read, in every chain."""

import pytest
import torch

from secateur.maths.packing import pack, unpack
from secateur.maths.unpacking import unpacked
from secateur.parts import edits
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.sparse import Sparse, offered
from secateur.types import Matrix, PlanError, Unit

SOME = [
    Sparse(0.5),
    Sparse(0.3),
    Sparse(n=2, m=4),
    Sparse(n=4, m=8),
    Sparse(0.5, block=16),
    Sparse(0.5, block=8, square=True),
    Sparse(0.5, then="int(bits=4, group=32)"),
    Sparse(n=2, m=4, then="int(bits=3, group=0)"),
    Sparse(0.5, then="fp8()"),
    Sparse(0.5, then="mxfp4()"),
    Sparse(n=2, m=4, then="nvfp4()"),
]


@pytest.mark.parametrize(
    ("edit", "bits"),
    [
        (Sparse(0.5), 9),
        (Sparse(0.3), 5.8),
        (Sparse(n=2, m=4), 8 + 8 / 3 / 4),  # three of six choices in a byte
        (Sparse(n=4, m=8), 8 + 7 / 8),  # one of seventy in seven bits
        (Sparse(0.5, block=16), 8 + 1 / 16),
        (Sparse(0.5, block=8, square=True), 8 + 1 / 64),
        (Sparse(0.5, then="int(bits=4, group=64)"), 1 + 2 + 16 / 64),
        (Sparse(0.5, then="fp8()"), 1 + 4 + 16 / 64),
    ],
    ids=str,
)
def test_the_price_is_the_mask_and_what_stays(edit, bits):
    unit = Unit("m", "linear", (Matrix("a", 96, 64, "m"), Matrix("b", 32, 64, "m")))
    assert edit.cost(unit)["bytes"] * 8 / unit.size == pytest.approx(bits, abs=0.01)


@pytest.mark.parametrize("edit", SOME, ids=str)
def test_what_is_stored_is_what_is_read(edit):
    random = torch.Generator().manual_seed(0)
    w, x, g = (torch.randn(*shape, generator=random) for shape in ((16, 64), (200, 64), (200, 16)))
    done = edit.grid().settle(w, x.T @ x / 200, g.T @ g / 200, 2)
    coded, parts = done.grid.code(done.values), edit.payload(16, 64)
    assert coded.tensors.keys() == parts.keys()
    stored = {}
    for name, part in parts.items():
        held = coded.tensors[name]
        assert tuple(held.shape) == part.shape
        if part.levels:
            n = held.numel()
            packed = pack(held.int() - part.low, part.levels)
            assert packed.numel() * 8 == part.bits
            held = (unpack(packed, part.levels, n).reshape(part.shape) + part.low).to(torch.int16)
            assert torch.equal(held, (unpacked(packed, part.levels, n).reshape(part.shape) + part.low).to(torch.int16))
        stored[name] = held
    assert torch.equal(edit.decode(stored), done.values)
    assert edits.parse(repr(edit)) == edit


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("sparse()", r"(?s)sparse\(keep=0.0\) is not a share.*write sparse\(keep=0.5\)"),
        ("sparse(1.5)", "is not a share between 0 and 1"),
        ("sparse(0.5, n=2, m=4)", "says what to keep in two ways"),
        ("sparse(n=2, m=4, block=4)", "says what to keep in two ways"),
        ("sparse(n=4, m=4)", r"(?s)does not keep n of up to 16.*2 of every 4"),
        ("sparse(n=2)", "does not keep n"),
        ("sparse(0.5, square=True)", "a block of 1 is none"),
        ("sparse(0.5, block=0)", "a block of 0 is none"),
        ("sparse(0.5, then='ggml(\"q4_k\")')", "cannot code what a mask leaves"),
        ("sparse(0.5, then='keep()')", "cannot code what a mask leaves"),
        ("sparse(0.5, then='sparse(0.5)')", "cannot code what a mask leaves"),
        ("sparse(0.5, then='int(bits=4, symmetric=False)')", "(?s)cannot code.*without zero points"),
        ("sparse(0.5, then='itn(4)')", "(?s)there is no edit `itn`"),
    ],
)
def test_what_cannot_be_said(words, why):
    with pytest.raises(PlanError, match=why):
        edits.parse(words)


def test_what_does_not_fit_a_matrix_is_refused():
    from secateur.export import find

    packed = find("packed")
    narrow, low = (Unit("m", "linear", (Matrix("a", *shape, "m"),)) for shape in ((64, 30), (30, 64)))
    assert packed.refuses(narrow, Sparse(n=2, m=4)) == "rows of 30 do not divide into groups of 4"
    assert packed.refuses(narrow, Sparse(0.5)) is None
    assert Sparse(0.5, block=16, square=True).refuses(low) == "30 rows do not divide into tiles of 16"
    assert packed.refuses(low, Sparse(n=2, m=4, then="int(bits=4, group=128)")) == (
        "rows of 64 do not divide into groups of 128"
    )


def test_the_menu():
    plain = offered((Keep(),))
    assert Sparse(0.5) in plain and Sparse(n=2, m=4) in plain and not any(edit.then for edit in plain)
    chains = [edit for edit in offered((Keep(), Int(4, 128))) if edit.then]
    assert {edit.then for edit in chains} == {"int(bits=8)", "int(bits=4)"}
    assert "sparse" in edits.kinds()
