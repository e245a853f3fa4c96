"""The whole way to llama.cpp: cut, written, run there, read back, and cut again from the file."""

from __future__ import annotations

import pytest

from secateur.cut import cut
from secateur.measure import llamacpp

pytest.importorskip("gguf")


def test_cut_to_gguf_and_cut_the_gguf_again(tiny, text, tmp_path, quick):
    first = cut(str(tiny("llama", head_dim=16)), str(text), "6 bits/weight", out=tmp_path / "a", format="gguf", **quick)
    holds(first, tmp_path / "a")
    again = cut(str(tmp_path / "a"), str(text), "5 bits/weight", out=tmp_path / "b", format="gguf", **quick)
    holds(again, tmp_path / "b")
    assert again["spent"]["bytes"] < first["spent"]["bytes"]
    assert again["loss_before"] == pytest.approx(first["loss_after"], abs=1e-4)


def holds(result, out):
    export = result["export"]
    assert export["files"] == ["model.gguf"]
    assert result["spent"]["bytes"] == export["bytes_on_disk"] == (out / "model.gguf").stat().st_size
    assert all(result["spent"][name] <= cap for name, cap in result["budget"].items() if name != "asked")
    assert export["logit_error"] < export["logit_limit"]
    if llamacpp.folder() is not None:
        assert export["verified_in"].startswith("llama.cpp") and export["tokenizer"] == "agrees"
    assert not (out / "config.json").exists() and (out / "tokenizer.json").exists()
