"""Edits are plain values: they can be written, read back, priced and decoded; nothing in their text is ever run."""

from __future__ import annotations

import doctest

import pytest
import torch

from secateur.parts import edits
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.ggml import Ggml
from secateur.parts.edits.int import Int, narrow
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4
from secateur.types import Edit, Matrix, PlanError, Unit

HALVES = Int(1, 32, symmetric=False, zero="fp8")
ALL = [
    Keep(),
    Int(3, 64),
    Int(2, 32, symmetric=False),
    Int(2, 32, scale="fp8"),
    HALVES,
    Int(8, 0),
    Fp8(),
    Mxfp4(),
    Nvfp4(),
    Ggml("q4_k"),
    Ggml("iq2_xs"),
]


def test_examples():
    assert doctest.testmod(edits).failed == 0


def test_every_file_has_its_class():
    assert {"channels", "fp8", "ggml", "int", "keep", "mxfp4", "nvfp4", "rank"} <= set(edits.names())
    assert [edits.find(name).__name__ for name in edits.names()] == [name.capitalize() for name in edits.names()]


@pytest.mark.parametrize("edit", ALL, ids=str)
def test_text_reads_back(edit):
    assert edits.parse(edits.text(edit)) == edit
    assert repr(edit) == edits.text(edit)
    assert isinstance(edit, Edit) and hash(edit) == hash(edits.parse(repr(edit)))


def test_text_leaves_out_what_goes_without_saying():
    assert edits.text(Int(4)) == "int(bits=4)"
    assert edits.text(Int(4, 64, symmetric=False)) == "int(bits=4, group=64, symmetric=False)"
    assert edits.text(Ggml("q4_k")) == "ggml('q4_k')"
    assert edits.parse("int(4, 64)") == Int(4, 64)
    assert edits.parse("ggml(kind='q4_k')") == Ggml("q4_k")
    assert edits.parse(" fp8 ") == Fp8()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("int(bits=3, groups=64)", r"(?s)`int` has no `groups` to set.*did you mean `group`\?"),
        ("itn(bits=3)", r"(?s)there is no edit `itn`.*did you mean `int`\?"),
        ("q4_k", "there is no edit `q4_k`"),
        ("int()", "(?s)lacks a value.*`int` needs bits"),
        ("int(bits=9)", "int has 2 to 8 bits, not 9"),
        ("int(bits=3, group=4)", "too small to pay for its scale"),
        ("int(bits=3, scale='fp4')", "no scales of type `fp4`"),
        ("int(bits=3, zero='fp8')", "a symmetric grid has no zero points"),
        ("int(bits=1)", "(?s)int has 2 to 8 bits, not 1.*one bit needs zero"),
        ("int(bits=3, bits=4)", "says `bits` twice"),
        ("int(3, bits=4)", "says `bits` twice"),
        ("int(1, 2, 3, 4, 5, 6)", "has 6 values, but `int` takes 5"),
        ("int(bits=print(1))", "is not a plain value"),
        ("__import__('os')", "there is no edit `__import__`"),
        ("a.b()", "cannot read"),
        ("int(bits=3", "cannot read"),
        ("", "cannot read"),
        ("_fp4()", "there is no edit `_fp4`"),
        ("int(bits='3')", "int has 2 to 8 bits"),
        ("int(**{'bits': 3})", "`int` has no `None` to set"),
        ("ggml()", "(?s)lacks a value.*`ggml` needs kind"),
        ("ggml('q4_K')", "(?s)ggml has no block type `q4_K`.*did you mean `q4_k`"),
        ("ggml(4)", "(?s)no block type `4`.*there are q4_0, "),
        ("keep(1)", "has 1 values, but `keep` takes 0"),
    ],
)
def test_what_cannot_be_read_says_why(words, why):
    with pytest.raises(PlanError, match=why):
        edits.parse(words)


PAIR = Unit("m", "linear", (Matrix("a.weight", 3, 64, "m"), Matrix("b.weight", 5, 64, "m")))


@pytest.mark.parametrize(
    ("edit", "bits"),
    [
        (Keep(), 16),
        (Int(3, 32), 3 + 16 / 32),
        (Int(2, 32, scale="fp8"), 2.25),
        (Int(4, 32, symmetric=False), 4 + 16 / 32 + 4 / 32),
        (Int(8, 0), 8 + 16 / 64),
        (HALVES, 1 + 16 / 32 + 8 / 32),
        (Fp8(), 8 + 16 / 64),
        (Mxfp4(), 4.25),
        (Ggml("q5_1"), 6.0),
        (Nvfp4(), 4.5 + 2 * 32 / PAIR.size),
    ],
    ids=str,
)
def test_price_without_a_format(edit, bits):
    assert edit.cost(PAIR)["bytes"] * 8 / PAIR.size == pytest.approx(bits, abs=0.02)
    assert edit.cost(PAIR)["payload"] == edit.cost(PAIR)["bytes"]


def test_decode_by_hand():
    codes = torch.tensor([[-2, 1, 0, -1]])
    assert Int(2, 0).decode({"codes": codes, "scale": torch.tensor([[-0.5]])}).tolist() == [[1.0, -0.5, 0.0, 0.5]]
    zeros = {
        "codes": torch.arange(16).reshape(1, 16),
        "scale": torch.tensor([[1.0, 2.0]]),
        "zero": torch.tensor([[0, 8]]),
    }
    values = Int(4, 8, symmetric=False).decode(zeros)
    assert values.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 4, 6, 8, 10, 12, 14]]
    half = {"codes": torch.tensor([[-1, 0]]), "scale": torch.tensor([[2.0]]), "zero": torch.tensor([[-0.75]])}
    assert HALVES.decode(half).tolist() == [[-0.5, 1.5]]
    fp4 = torch.arange(16, dtype=torch.uint8).repeat(2)[None]
    numbers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    numbers += [-x for x in numbers]
    assert Mxfp4().decode({"codes": fp4, "scale": torch.tensor([[128]], dtype=torch.uint8)}).tolist() == [
        [2 * x for x in numbers * 2]
    ]
    scale = torch.tensor([[4.0, 8.0]]).to(torch.float8_e4m3fn)
    whole = {"codes": fp4, "scale": scale, "global_scale": torch.tensor([16.0])}
    assert Nvfp4().decode(whole).tolist() == [[x / 4 for x in numbers] + [x / 2 for x in numbers]]


def test_grids_have_the_edit_s_numbers():
    grid = Int(3, 64).grid("bfloat16")
    assert (grid.bits, grid.group, grid.symmetric, grid.dtype) == (3, 64, True, torch.bfloat16)
    assert Int(3, 64, scale="fp8").grid("float16").dtype == torch.float8_e4m3fn
    assert Keep().grid() is None


def test_rows_of_blocks():
    def of(cols):
        return Unit("u", "linear", (Matrix("u", 8, 512, "u"), Matrix("v", 8, cols, "u")))

    assert Ggml("q6_k").refuses(of(512)) is None and Ggml("q8_0").refuses(of(96)) is None
    assert Ggml("q6_k").refuses(of(96)) == "rows of 96 weights are not whole blocks of 256"


CODED = [edit for edit in ALL if edit != Keep() and not isinstance(edit, Ggml)]  # theirs: tests/maths/grids


@pytest.mark.parametrize("edit", [*CODED, Int(4, 0), Int(2, 16, symmetric=False, zero="fp8")], ids=str)
def test_what_a_grid_codes_the_edit_decodes(edit):
    w = torch.randn(6, 64, generator=torch.Generator().manual_seed(0)) * 0.05
    fitted = edit.grid("float16").fit(w)
    coded = fitted.code(fitted.snap(w, fitted.scale, fitted.zero))
    assert torch.equal(edit.decode(coded.tensors), coded.values)
    for name, part in edit.payload(6, 64).items():
        tensor = coded.tensors[name]
        assert tuple(tensor.shape) == part.shape
        if part.levels:
            assert part.low <= int(tensor.min()) and int(tensor.max()) < part.low + part.levels


def test_kinds_of_edits_are_asked_for_by_name():
    assert edits.kinds()[0] == "bits" and "channels" in edits.kinds() and "int" not in edits.kinds()
    assert edits.asked("channels, bits,channels") == ("channels", "bits")
    assert edits.asked("all") == tuple(edits.kinds())
    for words, hint in (("chanels", "did you mean `channels`?"), ("", "and `all`"), ("bits,quux", "there are bits")):
        with pytest.raises(PlanError) as caught:
            edits.asked(words)
        assert hint in caught.value.hint


def test_without_bits_only_what_is_kept_whole_is_offered_beside():
    inner = (edits.parse("keep()"), edits.parse("int(bits=8, group=0)"))
    assert edits.offered(("bits",), inner) == inner
    alone = edits.offered(("channels",), inner)
    assert alone[0] == inner[0] and inner[1] not in alone
    assert all(edits.text(edit).startswith("channels") and "then" not in edits.text(edit) for edit in alone[1:])


def test_sizes_that_powers_of_two_do_not_divide_have_groups_of_their_own():
    def groups(*widths: int) -> set[int]:
        units = [Unit(f"u{w}", "linear", (Matrix(f"u{w}.weight", 10, w, f"u{w}"),)) for w in widths]
        return {edit.group for edit in narrow(units)} - {edit.group for edit in narrow()}

    assert groups(64, 96, 256, 41) == set(), "powers of two divide these, and nothing the prime"
    assert groups(64, 172) == {43, 86}
    assert groups(50, 200) == {25, 40, 50}  # of 200, 50 is beyond 48; 25 is half of 50
    assert len(groups(50, 172, 200, 360, 1000)) == 4, "those that most weights can have"
