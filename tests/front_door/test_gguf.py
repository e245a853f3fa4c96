"""The whole way to llama.cpp: cut, written, run there, read back, and cut again from the file."""

from __future__ import annotations

import pytest

from secateur.cut import cut
from secateur.export import export_folder
from secateur.measure import llamacpp
from secateur.types import ExportError

pytest.importorskip("gguf")


def test_cut_to_gguf_and_cut_the_gguf_again(tiny, text, tmp_path, quick):
    first = cut(str(tiny("llama", head_dim=16)), str(text), "6 bits/weight", out=tmp_path / "a", format="gguf", **quick)
    holds(first, tmp_path / "a")
    again = cut(str(tmp_path / "a"), str(text), "5 bits/weight", out=tmp_path / "b", format="gguf", **quick)
    holds(again, tmp_path / "b")
    assert again["spent"]["bytes"] < first["spent"]["bytes"]
    assert again["loss_before"] == pytest.approx(first["loss_after"], abs=1e-4)


@pytest.mark.usefixtures("llama")
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_to_gguf_and_back(tiny, text, tmp_path, quick, name):
    """Experts lie in three tensors a block there; the file is measured, cut again, and a model as it is is written."""
    more = {"norm_topk_prob": True, "moe_intermediate_size": 32} if name == "qwen3_moe" else {}
    model = str(tiny(name, head_dim=16, **more))
    first = cut(model, str(text), "7 bits/weight", out=tmp_path / "a", format="gguf", **quick)
    holds(first, tmp_path / "a")
    assert any(edit != "keep()" for row, edit in first["edits"].items() if ".experts." in row)
    again = cut(str(tmp_path / "a"), str(text), "6 bits/weight", out=tmp_path / "b", format="gguf", **quick)
    holds(again, tmp_path / "b")
    assert again["loss_before"] == pytest.approx(first["loss_after"], abs=1e-4)
    plain = export_folder(model, "gguf", tmp_path / "c")
    assert plain["logit_error"] < plain["logit_limit"]


def test_experts_do_not_change_their_shape_there(tiny, text, tmp_path, quick):
    with pytest.raises(ExportError, match="blocks of experts in one shape alone"):
        cut(str(tiny("mixtral", head_dim=16)), str(text), "60% flops", out=tmp_path, format="gguf", **quick)


def holds(result, out):
    export = result["export"]
    assert export["files"] == ["model.gguf"]
    assert result["spent"]["bytes"] == export["bytes_on_disk"] == (out / "model.gguf").stat().st_size
    assert all(result["spent"][name] <= cap for name, cap in result["budget"].items() if name != "asked")
    assert export["logit_error"] < export["logit_limit"]
    if llamacpp.folder() is not None:
        assert export["verified_in"].startswith("llama.cpp") and export["tokenizer"] == "agrees"
    assert not (out / "config.json").exists() and (out / "tokenizer.json").exists()
