"""GGUF files in the real llama.cpp: every family, the price to the byte, tokenizers, and what a wrong scale does."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.export import Finished, Format, Parts, find
from secateur.export._ggufverify import limit_of
from secateur.maths.grids import Coded
from secateur.measure import llamacpp
from secateur.model.anatomy import anatomy, load_block, skeleton
from secateur.model.checkpoint import open_checkpoint
from secateur.model.matrix import put, view
from secateur.parts.edits.ggml import Ggml
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.gguf.read import logits as decoded
from secateur.types import Edit, ExportError, Matrix, Unit

gguf = pytest.importorskip("gguf")
needs_llamacpp = pytest.mark.skipif(llamacpp.folder() is None, reason=f"llama.cpp is not here: {llamacpp.GET}")

FAMILIES = ["llama", "llama-tied", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt2"]
EXPERTS = {
    "mixtral": {},
    "qwen2_moe": {"mlp_only_layers": [], "norm_topk_prob": False},
    "qwen3_moe": {"norm_topk_prob": True},
}
HEADS = {"head_dim": 16, "query_pre_attn_scalar": 16}


@dataclass(frozen=True)
class Made:
    file: Path
    format: Format
    priced: int
    logits: torch.Tensor
    tokens: torch.Tensor


def made(source: Path, out: Path, choose) -> Made:
    """The whole way without planner: every unit gets the edit that `choose` says, fitted and rounded to nearest."""
    checkpoint = open_checkpoint(source)
    empty = skeleton(checkpoint)
    body = anatomy(checkpoint, empty)
    network = load_block(checkpoint, body, "", empty)
    form = find("gguf", checkpoint.config, body, checkpoint)
    dtype = str(checkpoint.config["dtype"])
    parts, edits = Parts(out / "parts"), {unit.name: choose(form, unit) for unit in body.units}
    layouts = {}
    for unit in body.units:
        edit = edits[unit.name]
        assert form.refuses(unit, edit) is None
        coded = {m.key: coded_with(edit, view(network, m)) for m in unit.matrices}
        layouts |= form.layout(unit, edit, dtype)
        parts.save(unit.name, form.encode(unit, edit, coded, dtype))
        for m in unit.matrices:
            put(network, m, form.seen(unit, edit, coded[m.key].values, dtype))
    copies = {name for name, why in body.skipped if "a copy of" in why}
    rest = [name for name in body.rest if name not in copies]
    layouts |= form.disk.layout_rest({n: (checkpoint.tensors[n].dtype, checkpoint.tensors[n].shape) for n in rest})
    parts.save("rest", form.disk.encode_rest({name: checkpoint.read(name) for name in rest}))
    pieces = (*(unit.name for unit in body.units), "rest")
    (out / "made").mkdir()
    (file,) = form.disk.write(Finished(parts, pieces, body.units, edits), out / "made")
    tokens = torch.arange(3, 19).reshape(2, 8)
    with torch.no_grad():
        logits = network(tokens).logits
    priced = form.disk.base_bytes() + sum(form.disk.tensor_bytes(name, one) for name, one in layouts.items())
    return Made(file, form, priced, logits, tokens)


def coded_with(edit: Edit, w: torch.Tensor) -> Coded:
    if isinstance(edit, Keep):
        return Coded(w.clone(), {})
    fitted = edit.grid().fit(w.float())
    return fitted.code(fitted.snap(w.float(), fitted.scale, fitted.zero))


def keep(form: Format, unit: Unit) -> Edit:
    return Keep()


def rotate(*kinds: str):
    """Hands out block types in turn."""
    at = iter(kinds * 100)
    return lambda form, unit: Ggml(next(at))


@needs_llamacpp
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_what_transformers_does(name, tiny, tmp_path):
    cut = made(tiny(name, "float32", **HEADS), tmp_path, keep)
    assert cut.file.stat().st_size == cut.priced
    told = cut.format.verify(cut.file.parent, cut.logits, cut.tokens)
    assert told["verified_in"].startswith("llama.cpp")
    # GELU is looked up in a table of 16-bit numbers there
    assert told["logit_error"] < (1e-3 if name.startswith(("gemma", "gpt2")) else 1e-5)


@needs_llamacpp
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "phi3"])
def test_blocks_of_many_kinds_in_one_file(name, tiny, tmp_path):
    cut = made(tiny(name, "bfloat16", **HEADS), tmp_path, rotate("q8_0", "q4_0", "q5_1", "iq4_nl", "q5_0", "mxfp4"))
    assert cut.file.stat().st_size == cut.priced
    assert cut.format.verify(cut.file.parent, cut.logits, cut.tokens)["logit_error"] < 0.05
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(str(cut.file)).tensors}
    assert {"Q8_0", "Q4_0", "Q5_1", "F32"} <= kinds
    with pytest.raises(ExportError, match=r"llama.cpp loads model.gguf, but its logits differ from ours by"):
        cut.format.verify(cut.file.parent, cut.logits + 0.1 * cut.logits.norm(dim=-1, keepdim=True), cut.tokens)


@needs_llamacpp
@pytest.mark.parametrize("name", EXPERTS)
def test_experts_in_one_tensor_each_for_gate_up_and_down(name, tiny, tmp_path):
    sizes = {"moe_intermediate_size": 32, "intermediate_size": 64, "shared_expert_intermediate_size": 64}
    source = tiny(name, "float32", **(HEADS | sizes | EXPERTS[name]))
    cut = made(source, tmp_path, keep)
    assert cut.file.stat().st_size == cut.priced
    told = cut.format.verify(cut.file.parent, cut.logits, cut.tokens)
    assert told["verified_in"].startswith("llama.cpp") and told["logit_error"] < 1e-5
    # the file is a model too: our own reading of it has the same logits
    assert torch.allclose(decoded(cut.file, cut.tokens), cut.logits, atol=1e-4)
    (tmp_path / "blocks").mkdir()
    cut = made(source, tmp_path / "blocks", rotate("q8_0", "q4_0", "q5_1", "iq4_nl", "q5_0", "mxfp4"))
    assert cut.file.stat().st_size == cut.priced
    assert cut.format.verify(cut.file.parent, cut.logits, cut.tokens)["logit_error"] < 0.05
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(str(cut.file)).tensors}
    stacks = [held[f"blk.1.ffn_{side}_exps.weight"] for side in ("gate", "up", "down")]
    assert stacks[0].tensor_type == stacks[1].tensor_type != gguf.GGMLQuantizationType.F32
    assert held["blk.1.ffn_gate_inp.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    assert torch.allclose(decoded(cut.file, cut.tokens), cut.logits, atol=1e-3)


@needs_llamacpp
def test_blocks_of_256_and_a_wrong_scale(tiny, tmp_path):
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 64}
    cut = made(tiny("llama", "float16", **sizes), tmp_path, rotate("q4_k", "q6_k", "q3_k", "q5_k", "q2_k", "iq4_xs"))
    assert cut.file.stat().st_size == cut.priced
    right = cut.format.verify(cut.file.parent, cut.logits, cut.tokens)["logit_error"]
    assert right < limit_of(cut.file)  # a random network feels the rounding of activations more than a trained one
    wrong = next(t for t in gguf.GGUFReader(str(cut.file)).tensors if t.name == "blk.1.ffn_down.weight")
    raw = bytearray(cut.file.read_bytes())
    data = np.frombuffer(raw, np.uint8, wrong.n_bytes, wrong.data_offset).reshape(-1, *wrong.data.shape[1:])
    assert wrong.tensor_type.name in ("Q6_K", "Q3_K", "Q5_K", "Q4_K", "Q2_K", "IQ4_XS")
    size = gguf.GGML_QUANT_SIZES[wrong.tensor_type][1]
    place = {"Q6_K": size - 2, "Q3_K": size - 2, "Q2_K": size - 4}.get(wrong.tensor_type.name, 0)
    blocks = data.reshape(-1, size)
    scale = np.ascontiguousarray(blocks[:, place : place + 2]).view(np.float16)
    blocks[:, place : place + 2] = (scale * np.float16(1.5)).view(np.uint8)
    cut.file.write_bytes(raw)
    with pytest.raises(ExportError, match="its logits differ"):
        cut.format.verify(cut.file.parent, cut.logits, cut.tokens)


@needs_llamacpp
def test_a_file_that_is_damaged_is_an_error_and_not_a_crash(tiny, tmp_path):
    cut = made(tiny("llama", "float32", **HEADS), tmp_path, keep)
    cut.file.write_bytes(cut.file.read_bytes()[:-4000])
    with pytest.raises(Exception, match=r"llama.cpp (refused|was killed by signal \d+) (with )?model.gguf"):
        llamacpp.logits(cut.file, cut.tokens.numpy())


def test_without_llamacpp_another_reader_is_asked(tiny, tmp_path, monkeypatch):
    cut = made(tiny("llama", "float32", **HEADS), tmp_path, keep)
    monkeypatch.setenv(llamacpp.WHERE, str(tmp_path))
    told = cut.format.verify(cut.file.parent, cut.logits, cut.tokens)
    assert told["verified_in"].startswith("transformers") and told["logit_error"] < 1e-5
    told = cut.format.verify(cut.file.parent, None, cut.tokens)
    assert told["verified_in"].startswith("not verified: ") and told["logit_error"] is None
    with pytest.raises(llamacpp.RuntimeMissingError, match=r"(?s)llama.cpp is not installed here.*hint: .*npm install"):
        llamacpp.logits(cut.file, cut.tokens.numpy())


def test_what_is_not_held_is_refused_in_words(tiny):
    form = find("gguf")
    unit = Unit("m", "linear", (Matrix("m.weight", 4, 96, "m"),))
    assert form.refuses(unit, Ggml("q4_k")) == "rows of 96 weights are not whole blocks of 256"
    assert form.refuses(unit, Ggml("q4_0")) is None
    assert "llama.cpp has no such grid" in str(form.refuses(unit, Int(4, 32)))
    assert "of the kind conv" in str(form.refuses(Unit("m", "conv", unit.matrices), Keep()))


@pytest.mark.parametrize(
    "name, changed, said",
    [
        ("olmo2", {}, "does not know how llama.cpp names the tensors of `olmo2`"),
        ("qwen2_moe", {}, "has experts in every block, this model not"),
        ("qwen3_moe", {"norm_topk_prob": False}, "would make the weights of chosen experts add up to one"),
        ("llama", {"hidden_act": "relu"}, "llama.cpp runs `llama` with silu, and this model has relu"),
        ("gemma2", {"query_pre_attn_scalar": 100}, "scales attention by 16 and this model by 100"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scales attention alike in every block"),
    ],
)
def test_models_that_llamacpp_would_compute_otherwise_are_refused(name, changed, said, tiny, tmp_path):
    shutil.copytree(tiny(name, "float32", **({} if name == "gpt2" else HEADS)), tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps(config | changed))
    checkpoint = open_checkpoint(tmp_path / "m")
    with pytest.raises(ExportError, match=said):
        find("gguf", checkpoint.config, anatomy(checkpoint, skeleton(checkpoint)), checkpoint)
