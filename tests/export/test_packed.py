"""Our own file: any edit at its true width, read back to the bit."""

from __future__ import annotations

import json

import pytest
import torch

from secateur.export import find, packed
from secateur.export._read import network, open_reading, read_model
from secateur.export._write import Parts
from secateur.model.checkpoint import open_tensors, read_header
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4
from secateur.types import ExportError, ModelError

EDITS = (
    Int(3, 32),
    Nvfp4(),
    Int(2, 32, symmetric=False),
    Mxfp4(),
    Keep(),
    Int(5, 0),
    Fp8(),
    Int(2, 32, scale="fp8"),
    Int(8, 32, symmetric=False),
    Int(1, 16, symmetric=False, zero="fp8"),
    Int(8, 32),
)


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2", "gpt_neox", "mixtral", "gpt_oss", "gemma", "opt"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_reads_back_to_the_bit(tiny, cutter, tmp_path, family, dtype):
    cut = cutter(tiny(family, dtype), tmp_path, "packed", cutter.rotate(*EDITS))
    found = cut.format.verify(tmp_path, cut.logits, cut.tokens)
    assert found["logit_error"] < 1e-6 and found["verified_in"].startswith("secateur ")
    read = packed.load(tmp_path)
    for unit in cut.units:
        for m in unit.matrices:
            stored = read[m.tensor] if m.index is None else read[m.tensor][m.index]
            assert torch.equal(stored.T if m.transposed else stored, cut.values[m.key]), m.key


def test_original_names_and_shapes_come_back(tiny, cutter, tmp_path):
    source = tiny("gpt_oss", "bfloat16")
    cutter(source, tmp_path, "packed", cutter.rotate(Int(3, 32), Fp8()))
    before = {name: entry.shape for name, entry in open_tensors(source).items()}
    assert {name: tuple(tensor.shape) for name, tensor in read_model(tmp_path)} == before


def test_fused_experts_saved_as_one_tensor(tiny, cutter, tmp_path):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("qwen3_moe", "float16"))
    model.save_pretrained(tmp_path / "fused", save_original_format=False)
    assert len(open_tensors(tmp_path / "fused")["model.layers.0.mlp.experts.down_proj"].shape) == 3
    for name in ("packed", "compressed-tensors", "safetensors"):
        choose = cutter.rotate(Int(4, 8), Int(3, 0))
        cut = cutter(tmp_path / "fused", tmp_path / name, name, choose)
        assert cut.format.verify(tmp_path / name, cut.logits, cut.tokens)["logit_error"] < 1e-5


def test_transformers_does_not_take_it_for_its_own(tiny, cutter, tmp_path):
    import transformers

    cutter(tiny("llama", "float16"), tmp_path, "packed", cutter.rotate(Int(3, 32)))
    with pytest.raises(OSError, match=r"no file named .*model.safetensors"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_shards(tiny, cutter, tmp_path):
    cut = cutter(tiny("llama", "float16"), tmp_path / "one", "packed", cutter.rotate(Int(3, 32), Fp8()))
    entries = read_header(tmp_path / "one/packed.safetensors")
    whole = open_reading(tmp_path / "one")
    parts = Parts(tmp_path / "parts")
    parts.save("all", {name: whole.checkpoint.read(name) for name in entries})
    for shard in (20_000, 10_000, 20_000):
        files = parts.stitch(["all"], tmp_path / "many", shard=shard, stem="packed")
        config = json.loads((tmp_path / "one/config.json").read_text())
        cut.format.finish(tmp_path / "many", config, cut.plan, cut.units)
        assert len(files) > 1 and len(list((tmp_path / "many").glob("packed-*.safetensors"))) == len(files)
        assert cut.format.verify(tmp_path / "many", cut.logits, cut.tokens)["logit_error"] < 1e-6
    next((tmp_path / "many").glob("packed-00002*")).unlink()
    with pytest.raises(ModelError, match="packed files"):
        open_reading(tmp_path / "many")


def test_a_newer_version_is_refused(tiny, cutter, tmp_path):
    cutter(tiny("llama", "float16"), tmp_path, "packed", cutter.rotate(Int(3, 32)))
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["version"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="packed in version 2"):
        open_reading(tmp_path)


def test_wrong_bytes_are_an_error(tiny, cutter, tmp_path):
    cut = cutter(tiny("llama", "float16"), tmp_path, "packed", cutter.rotate(Int(4, 32)))
    entry = read_header(tmp_path / "packed.safetensors")["model.layers.1.mlp.down_proj.weight.scale"]
    with entry.file.open("r+b") as file:
        file.seek(entry.start)
        file.write(bytes(entry.bytes))
    with pytest.raises(ExportError, match="its logits differ"):
        cut.format.verify(tmp_path, cut.logits, cut.tokens)


def test_refuses_with_a_reason(cutter):
    from secateur.types import Matrix, Unit

    unit = Unit("m", "linear", (Matrix("m.weight", 4, 100, "m"),))
    assert find("packed").refuses(unit, Int(3, 32)) == "rows of 100 do not divide into groups of 32"
    assert find("packed").refuses(unit, Mxfp4()) == "rows of 100 do not divide into groups of 32"
    assert find("packed").refuses(unit, Int(3, 0)) is None
    assert "does not say what it would store" in find("packed").refuses(unit, object())
    conv = Unit("c", "conv", (Matrix("c.weight", 4, 27, "c"),))
    assert "a convolution" in find("packed").refuses(conv, Keep())


def test_network_is_in_eval_mode_and_float32(tiny, cutter, tmp_path):
    cutter(tiny("llama", "float16"), tmp_path, "packed", cutter.rotate(Int(4, 32)))
    model = network(tmp_path)
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
