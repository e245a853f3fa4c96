"""Back to plain weights, and what travels with a model."""

from __future__ import annotations

import json

import pytest
import torch

from secateur.export import companions, export_folder, find, open_reading, read_model
from secateur.export._verify import load, quiet
from secateur.model.checkpoint import open_checkpoint, open_tensors
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4
from secateur.types import ExportError, ModelError

pytest.importorskip("compressed_tensors")
MIX = (Int(3, 32), Nvfp4(), Int(2, 32, symmetric=False), Mxfp4(), Fp8(), Int(8, 32), Keep())


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma", "gpt_neox", "mixtral"])
@pytest.mark.parametrize("name", ["compressed-tensors", "packed"])
def test_a_cut_model_becomes_plain(tiny, cutter, tmp_path, name, family):
    cut = cutter(tiny(family, "bfloat16"), tmp_path / "cut", name, cutter.rotate(*MIX))
    said = export_folder(tmp_path / "cut", "safetensors", tmp_path / "plain")
    config = json.loads((tmp_path / "plain/config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "bfloat16"
    before = {n: (e.dtype, e.shape) for n, e in open_tensors(tiny(family, "bfloat16")).items()}
    assert {n: (e.dtype, e.shape) for n, e in open_tensors(tmp_path / "plain").items()} == before
    assert said["bytes_on_disk"] == (tmp_path / "plain/model.safetensors").stat().st_size > said["bytes_before"]
    model, info = load(tmp_path / "plain")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        logits = model(cut.tokens).logits
    assert float((logits - cut.logits).norm() / cut.logits.norm()) < 2e-2  # weights rounded to bfloat16


@pytest.mark.parametrize("family", ["llama", "llama-tied", "mixtral", "qwen2", "opt"])
def test_our_reader_agrees_with_the_library_to_the_bit(tiny, cutter, tmp_path, family):
    cut = cutter(tiny(family, "bfloat16"), tmp_path, "compressed-tensors", cutter.rotate(*MIX))
    read = dict(read_model(tmp_path))
    for unit in cut.units:
        for m in unit.matrices:
            assert torch.equal(read[m.tensor], cut.values[m.key]), m.key


def test_files_of_the_library_itself_are_read(tiny, tmp_path):
    """As llm-compressor writes them: targets by kind of module, zero points packed."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    args = {"num_bits": 3, "group_size": 16, "strategy": "group", "symmetric": False}
    about = {"config_groups": {"all": {"targets": ["Linear"], "weights": args}}, "ignore": ["lm_head"]}
    with quiet():
        apply_quantization_config(model, QuantizationConfig(**about, quantization_status="initialized"))
        for module in model.modules():
            if hasattr(module, "weight_scale"):
                module.weight_scale.data.fill_(0.05)
                module.weight_zero_point.data.fill_(1)
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(tmp_path)
        compressor.update_config(str(tmp_path))
        compressor.decompress_model(model)
    read = dict(read_model(tmp_path))
    for name, value in model.state_dict().items():
        if name.endswith("proj.weight"):
            assert torch.equal(read[name], value), name
    assert "model.layers.0.self_attn.q_proj.weight_zero_point" not in read


def test_plain_models_are_rewritten_whole(tiny, tmp_path):
    source = tiny("llama", "float16")
    export_folder(source, "safetensors", tmp_path)
    before, after = open_checkpoint(source), open_checkpoint(tmp_path)
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(before.read(name), after.read(name)) for name in before.tensors)
    assert (tmp_path / "generation_config.json").exists()


def test_companions_travel_and_weights_do_not(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    travel = [
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
        "generation_config.json",
        "LICENSE",
        "merges.txt",
    ]
    for name in (*travel, "model.safetensors", "config.json", "pytorch_model.bin", "README.md", "training.json"):
        (source / name).write_text(name)
    assert sorted(f.name for f in companions(source, out)) == sorted(travel)
    assert sorted(f.name for f in out.iterdir()) == sorted(travel)
    assert (out / "LICENSE").read_text() == "LICENSE"


def test_only_to_safetensors(tiny, tmp_path):
    with pytest.raises(ExportError, match=r"(?s)only turned into safetensors.*secateur cut .* --format packed"):
        export_folder(tiny("llama", "float16"), "packed", tmp_path)
    with pytest.raises(ExportError, match="is the model itself"):
        export_folder(tiny("llama", "float16"), "safetensors", tiny("llama", "float16"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("packd", r"did you mean `packed`\?"),
        ("zip", "there are compressed-tensors, gguf"),
        ("_write", "there is no format"),
    ],
)
def test_unknown_formats(name, why):
    with pytest.raises(ExportError, match=f"(?s){why}"):
        find(name)


def test_other_quantizers_are_named(tiny, tmp_path):
    source = tiny("llama", "float16")
    config = json.loads((source / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="is quantized by gptq, which Secateur does not read"):
        open_reading(tmp_path)


def test_old_packing_is_named(tiny, cutter, tmp_path):
    cutter(tiny("llama", "float16"), tmp_path, "compressed-tensors", cutter.rotate(Int(3, 32)))
    reading = open_reading(tmp_path)
    name = "model.layers.0.mlp.down_proj.weight"
    from dataclasses import replace

    old = replace(reading.decoded[name], shape=(reading.tensors[name].shape[0], 105))  # ten values in a word, not 10.67
    with pytest.raises(ModelError, match="as compressed-tensors did before 2026"):
        old.read()


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma2", "gpt2", "gpt_oss", "mixtral"])
def test_plain_safetensors_hold_any_edit(tiny, cutter, tmp_path, family):
    cut = cutter(tiny(family, "bfloat16"), tmp_path, "safetensors", cutter.rotate(*MIX, Int(5, 0)))
    found = cut.format.verify(tmp_path, cut.logits, cut.tokens)
    assert found["logit_error"] < 1e-5 and found["verified_in"].startswith("transformers ")


@pytest.mark.parametrize("family", ["llama", "gemma", "mixtral", "qwen2_moe"])
@pytest.mark.parametrize(
    "edits", [(Int(4, 32),), (Nvfp4(), Int(3, 32), Fp8()), (Int(2, 32, scale="fp8"), Keep())], ids=str
)
def test_as_a_user_loads_it(tiny, cutter, tmp_path, family, edits):
    """`from_pretrained(folder)` and nothing else: in the model's own type, decoded at the first forward pass."""
    from transformers import AutoModelForCausalLM

    turn = cutter.rotate(*edits)

    def choose(form, unit):
        return Int(4, 8) if unit.kind == "experts" else turn(form, unit)

    cut = cutter(tiny(family, "bfloat16", moe_intermediate_size=32), tmp_path, "compressed-tensors", choose)
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
        with torch.no_grad():
            logits = model(cut.tokens).logits.float()
    assert model.dtype == torch.bfloat16
    assert float((logits - cut.logits).norm() / cut.logits.norm()) < 0.1
