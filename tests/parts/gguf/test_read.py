"""GGUF files as models: read back, measured, cut again, converted, and networks whose blocks differ."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.cut import export, inspect
from secateur.measure import llamacpp, measure
from secateur.model.checkpoint import open_checkpoint
from secateur.parts.gguf.names import order, turned, turned_back
from secateur.parts.gguf.read import is_gguf, open_gguf
from secateur.parts.reading import network, read_model
from secateur.types import ModelError

pytest.importorskip("gguf")
needs_llamacpp = pytest.mark.skipif(llamacpp.folder() is None, reason=f"llama.cpp is not here: {llamacpp.GET}")

front = runpy.run_path(str(Path(__file__).parents[2] / "front_door" / "conftest.py"))
HEADS = {"head_dim": 16, "query_pre_attn_scalar": 16}
FAMILIES = ["llama", "llama-tied", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt2"]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """`model("llama")` -> the folder of a tiny model in float16 with a byte-level tokenizer."""
    made = {}

    def get(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("model") / name
            made[name] = front["save"](name, "float16", {} if name == "gpt2" else HEADS, folder)
        return made[name]

    return get


def test_rows_are_turned_and_turned_back():
    x = torch.arange(24.0).view(12, 2)
    assert order(4, 1).tolist() == [0, 2, 1, 3]
    assert torch.equal(turned_back(turned(x, 3), 3), x)


def test_frequencies_slowed_as_llama_3_has_them_come_back(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    folder = front["save"]("llama", "float16", HEADS | {"rope_parameters": rope}, tmp_path / "model")
    told = export(str(folder), "gguf", tmp_path / "out")
    if llamacpp.folder() is not None:  # which slows them down itself
        assert told["verified_in"].startswith("llama.cpp") and told["logit_error"] < 2e-3
    tokens = torch.randint(0, 96, (2, 24), generator=torch.Generator().manual_seed(0))
    here = network(open_checkpoint(folder).folder)(tokens).logits
    back = network(tmp_path / "out")(tokens).logits
    torch.testing.assert_close(back, here, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_there_and_back(name, model, tmp_path):
    told = export(str(model(name)), "gguf", tmp_path)
    assert told["format"] == "gguf" and told["files"] == ["model.gguf"]
    assert told["bytes_on_disk"] == (tmp_path / "model.gguf").stat().st_size
    if llamacpp.folder() is not None:
        assert told["verified_in"].startswith("llama.cpp") and told["tokenizer"] == "agrees"
    (tmp_path / "tokenizer.json").unlink()
    assert is_gguf(tmp_path) and is_gguf(tmp_path / "model.gguf") and not is_gguf(model(name))
    back, first = open_gguf(tmp_path), open_checkpoint(model(name))
    was, now = first.config, back.config
    for key in ("model_type", "num_hidden_layers", "n_layer", "head_dim", "rms_norm_eps", "tie_word_embeddings"):
        assert now.get(key) == pytest.approx(was[key]) if key in was and key in now else True
    expected = dict(read_model(model(name)))
    found = {key: back.read(key).float() for key in back.tensors}
    assert set(expected) - set(found) <= {"lm_head.weight"}
    for key in found:
        assert torch.allclose(found[key], expected[key], atol=1e-3 if "norm" in key else 0), key
    words = back.tokenizer()
    assert words("Cut it!")["input_ids"] == [words.get_vocab()[c] for c in ("C", "u", "t", "Ġ", "i", "t", "!")]


def test_measured_like_any_other(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the tree keeps a leaf and cuts the stem. " * 40)
    export(str(model("llama")), "gguf", tmp_path / "out")
    rows = measure([str(tmp_path / "out")], text, against=str(model("llama")), seq_len=32)["rows"]
    assert rows[0]["kl"] < 1e-9 and rows[0]["agreement"] == 1
    assert rows[0]["bytes"] == (tmp_path / "out/model.gguf").stat().st_size
    assert "rounds activations" in rows[0]["note"]
    assert inspect(str(tmp_path / "out/model.gguf"))["family"] == "llama"
    export(str(tmp_path / "out"), "safetensors", tmp_path / "plain")
    assert measure([str(tmp_path / "plain")], text, against=str(model("llama")), seq_len=32)["rows"][0]["kl"] < 1e-9


def test_damaged_files_are_named(model, tmp_path):
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(ModelError, match=r"a.gguf is not a GGUF file, or is damaged"):
        open_gguf(file)
    export(str(model("llama")), "gguf", tmp_path / "out")
    whole = (tmp_path / "out/model.gguf").read_bytes()
    (tmp_path / "out/b.gguf").write_bytes(whole)
    with pytest.raises(ModelError, match="holds 2 GGUF files"):
        open_gguf(tmp_path / "out")


# blocks that differ


@pytest.fixture
def uneven(model, tmp_path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """A Llama whose second block has half the heads and half the MLP: the folder, tokens, and its logits."""
    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(model("llama"), dtype=torch.float32).eval()
    block = network.model.layers[1]
    with torch.no_grad():
        attention, mlp = block.self_attn, block.mlp
        attention.q_proj.weight = torch.nn.Parameter(attention.q_proj.weight[:32].clone())
        attention.k_proj.weight = torch.nn.Parameter(attention.k_proj.weight[:16].clone())
        attention.v_proj.weight = torch.nn.Parameter(attention.v_proj.weight[:16].clone())
        attention.o_proj.weight = torch.nn.Parameter(attention.o_proj.weight[:, :32].clone())
        for name in ("gate_proj", "up_proj"):
            getattr(mlp, name).weight = torch.nn.Parameter(getattr(mlp, name).weight[:64].clone())
        mlp.down_proj.weight = torch.nn.Parameter(mlp.down_proj.weight[:, :64].clone())
        tokens = torch.arange(32).reshape(2, 16)
        logits = network(tokens).logits
    folder = tmp_path / "uneven"
    network.half().save_pretrained(folder)
    return folder, tokens, logits


@needs_llamacpp
def test_blocks_of_different_widths_and_heads_run_in_llamacpp(uneven, tmp_path):
    folder, tokens, logits = uneven
    with pytest.raises(ModelError, match="where LlamaForCausalLM needs"):
        inspect(str(folder))
    told = export(str(folder), "gguf", tmp_path / "out")
    assert told["logit_error"] < 2e-3
    metadata = open_gguf(tmp_path / "out").metadata
    assert metadata["general.architecture"] == "deci"
    assert metadata["deci.attention.head_count"] == [4, 2] and metadata["deci.attention.head_count_kv"] == [2, 1]
    assert metadata["deci.feed_forward_length"] == [96, 64]
    found = torch.from_numpy(llamacpp.logits(tmp_path / "out/model.gguf", tokens.numpy()))
    assert float((found - logits).norm() / logits.norm()) < 2e-3
    assert np.isfinite(found.numpy()).all()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
