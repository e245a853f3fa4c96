"""A model speaks in its runtime: the same words from the same weights in llama.cpp, transformers and our reader."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from secateur.cut import export
from secateur.measure import llamacpp
from secateur.talk import speak
from secateur.types import DataError, ModelError

front = runpy.run_path(str(Path(__file__).parent / "front_door" / "conftest.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return front["save"]("llama", "float32", {"head_dim": 16}, tmp_path_factory.mktemp("model") / "llama")


def test_the_same_words_everywhere(model, tmp_path, secateur):
    speaker = speak(str(model), "the tree", 8)
    assert speaker.runtime.startswith("transformers")
    words = "".join(speaker.pieces)
    assert words
    if llamacpp.folder() is None:
        pytest.skip(f"llama.cpp is not here: {llamacpp.GET}")
    pytest.importorskip("gguf")
    export(str(model), "gguf", tmp_path)
    ran = secateur("run", tmp_path, "--prompt", "the tree", "-n", 8, "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["runtime"].startswith("llama.cpp") and told["seconds"] > 0
    # a random network says bytes that are no characters, of which each reader makes something else
    assert told["text"].replace("\ufffd", "") == words.replace("\ufffd", "")
    shown = secateur("run", tmp_path / "model.gguf", "-p", "the tree", "-n", 8)
    assert shown.stdout.startswith("the tree")


def test_what_does_not_speak_says_why(model, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="the prompt is empty"):
        speak(str(model), "")
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelError, match=r"is an .onnx file, which does not speak from here"):
        speak(str(tmp_path), "the")
    monkeypatch.setenv(llamacpp.WHERE, str(tmp_path))
    (tmp_path / "model.gguf").touch()
    with pytest.raises(llamacpp.RuntimeMissingError, match="which is not installed here"):
        speak(str(tmp_path), "the")
