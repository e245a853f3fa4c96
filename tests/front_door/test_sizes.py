"""Number types and sizes that grids are not made for: 32 bits, rows of 172; and which format is taken unsaid."""

from __future__ import annotations

import pytest

from secateur.cut import cut
from secateur.cut.opening import usual_format
from secateur.parts.menus import load_menu
from secateur.types import BudgetError, PlanError


@pytest.mark.parametrize("format", ["compressed-tensors", "packed", "safetensors", "vllm", "torch-export"])
def test_every_matrix_in_half_its_bytes(format, tiny, text, tmp_path, quick):
    model = tiny("llama", dtype="float32")
    pin = {"*": "half()"}
    result = cut(str(model), str(text), "17 bits/weight", out=tmp_path, format=format, pin=pin, **quick)
    assert set(result["edits"].values()) == {"half()"}
    assert result["export"]["logit_error"] < 1e-5
    priced = result["export"]["bytes_priced"]
    assert priced == result["spent"]["bytes"] < 0.53 * (model / "model.safetensors").stat().st_size
    assert 0 < result["damage_predicted"] < 1e-4


@pytest.mark.usefixtures("llama")
def test_gguf_of_widths_that_no_block_divides(tiny, text, tmp_path, quick):
    """Rows of 36 and 60 weights are no blocks of 32."""
    odd = {"n_embd": 36, "n_inner": 60, "n_head": 4}
    result = cut(str(tiny("gpt2", "float32", **odd)), str(text), "80% bytes", out=tmp_path, format="gguf", **quick)
    assert set(result["edits"].values()) <= {"half()", "keep()"} and "half()" in result["edits"].values()
    assert result["spent"]["bytes"] == (tmp_path / "model.gguf").stat().st_size


def test_what_has_16_bits_is_not_halved(tiny, text, tmp_path, quick):
    with pytest.raises(PlanError, match=r"cannot be half\(\): it is stored in 16 bits already"):
        cut(str(tiny("llama")), str(text), "9 bits/weight", out=tmp_path, pin={"*.o_proj": "half()"}, **quick)


def test_the_format_where_none_is_said(tiny, text, tmp_path, quick):
    """GPT-2's matrices stand the other way round, which transformers' reader of codes does not know."""
    assert usual_format(str(tiny("llama"))) == "compressed-tensors"
    assert usual_format(str(tiny("gpt_oss"))) == "packed"
    result = cut(str(tiny("gpt2")), str(text), "5 bits/weight", out=tmp_path, **quick)
    assert result["export"]["format"] == "packed"
    assert result["spent"]["bits_per_weight"] <= 5


def test_why_a_budget_is_too_small(tiny, text, tmp_path, quick):
    with pytest.raises(BudgetError) as caught:
        cut(str(tiny("gpt2")), str(text), "5 bits/weight", out=tmp_path, format="compressed-tensors", **quick)
    assert "8 units that can only be plain numbers" in caught.value.hint
    assert "stored the other way round" in caught.value.hint
    assert "take another format (packed holds most)" in caught.value.hint
    with pytest.raises(BudgetError) as caught:
        cut(str(tiny("llama")), str(text), "5 bits/weight", out=tmp_path / "kept", keep=("*",), **quick)
    assert "kept by --keep" in caught.value.hint and "loosen --keep" in caught.value.hint


@pytest.mark.parametrize("format", ["packed", "compressed-tensors"])
def test_groups_that_divide_odd_rows(format, tiny, text, tmp_path, quick):
    """Rows of 172 weights, in groups of 43."""
    pin = {"*.down_proj": 'int(bits=3, group=43, symmetric=False, scale="fp8", zero="fp8")'}
    model = tiny("llama", intermediate_size=172)
    result = cut(str(model), str(text), "9 bits/weight", out=tmp_path, format=format, pin=pin, **quick)
    assert sum("group=43" in edit for edit in result["edits"].values()) == 2
    assert result["export"]["logit_error"] < 1e-5
    menu = load_menu(tmp_path / "menu")
    assert {43, 86} <= {getattr(edit, "group", 0) for edit in menu.edits}
