"""What we write, transformers reads: every edit, every mix, every family, to the bit where nothing rounds."""

from __future__ import annotations

import json

import pytest
import torch

from secateur.export import asymmetric_reloads
from secateur.export._verify import load
from secateur.export.compressed_tensors import CompressedTensors
from secateur.model.checkpoint import open_tensors
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4
from secateur.types import ExportError, Matrix, Plan, Unit

pytest.importorskip("compressed_tensors")

INTS = [Int(bits, group) for bits in range(2, 9) for group in (32, 0)]
ONE_BY_ONE = [
    *INTS,
    Int(4, 16),
    Int(2, 32, scale="fp8"),
    Int(8, 32, scale="fp8"),
    Int(3, 32, symmetric=False),
    Int(2, 16, symmetric=False),
    Int(8, 32, symmetric=False),
    Int(2, 32, symmetric=False, zero="fp8"),
    Int(1, 16, symmetric=False, zero="fp8"),
    Int(3, 16, symmetric=False, scale="fp8", zero="fp8"),
    Fp8(),
]


def uniform(edit):
    return lambda form, unit: edit if form.refuses(unit, edit) is None else Keep()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("edit", ONE_BY_ONE, ids=str)
def test_an_edit_reloads_to_the_bit(tiny, cutter, tmp_path, edit, dtype):
    cut = cutter(tiny("llama", dtype), tmp_path, "compressed-tensors", uniform(edit))
    found = cut.format.verify(tmp_path, cut.logits, cut.tokens)
    assert found["logit_error"] < 1e-5 and "compressed-tensors" in found["verified_in"]
    _same_weights(cut)


@pytest.mark.parametrize("edit", [Mxfp4(), Nvfp4()], ids=str)
def test_four_bit_floats_reload_rounded_to_bfloat16(tiny, cutter, tmp_path, edit):
    cut = cutter(tiny("llama", "bfloat16"), tmp_path, "compressed-tensors", uniform(edit))
    assert {type(e) for e in cut.plan.edits.values()} == {type(edit), Keep}
    assert cut.format.verify(tmp_path, cut.logits, cut.tokens)["logit_error"] < 1e-5
    _same_weights(cut)


def test_everything_in_one_file(tiny, cutter, tmp_path):
    mix = cutter.rotate(Nvfp4(), Int(3, 32), Fp8(), Mxfp4(), Int(5, 0), Int(8, 32), Int(2, 32, symmetric=False), Keep())
    cut = cutter(tiny("llama", "bfloat16", num_hidden_layers=3), tmp_path, "compressed-tensors", mix)
    assert len(set(cut.plan.edits.values())) >= 7
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert config["format"] == "mixed-precision"
    assert cut.format.verify(tmp_path, cut.logits, cut.tokens)["logit_error"] < 1e-5
    _same_weights(cut)


@pytest.mark.parametrize("family", ["llama", "llama-tied", "mistral", "qwen2", "qwen3", "gemma", "gemma3", "phi3"])
def test_families_reload(tiny, cutter, tmp_path, family):
    _family(tiny, cutter, tmp_path, family)


@pytest.mark.parametrize("family", ["opt", "gpt2", "gpt_neox", "olmo2", "bloom", "gpt_oss", "gemma2"])
def test_other_families_reload(tiny, cutter, tmp_path, family):
    _family(tiny, cutter, tmp_path, family)


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
@pytest.mark.parametrize("edit", [Int(3, 8), Int(4, 0), Fp8(), Keep(), Mxfp4()], ids=str)
def test_experts_reload(tiny, cutter, tmp_path, family, edit):
    dtype = "bfloat16" if edit == Mxfp4() else "float16"
    others = cutter.rotate(Int(2, 32), Int(5, 0), Fp8())

    def choose(form, unit):
        if unit.kind == "experts":
            return edit
        return others(form, unit)

    source = tiny(family, dtype, moe_intermediate_size=32, shared_expert_intermediate_size=32)
    cut = cutter(source, tmp_path, "compressed-tensors", choose)
    assert any(unit.kind == "experts" for unit in cut.units)
    assert cut.format.verify(tmp_path, cut.logits, cut.tokens)["logit_error"] < 1e-5


def _family(tiny, cutter, tmp_path, family):
    edits = cutter.rotate(Int(3, 32), Int(8, 0), Fp8(), Int(4, 16), Int(6, 0))
    cut = cutter(tiny(family, "float16"), tmp_path, "compressed-tensors", edits)
    assert cut.format.verify(tmp_path, cut.logits, cut.tokens)["logit_error"] < 1e-5
    kinds = {unit.kind for unit in cut.units if cut.plan.edits[unit.name] != Keep()}
    assert "embedding" in kinds
    assert family == "gpt2" or "linear" in kinds


def _same_weights(cut):
    """The weights themselves, as transformers decodes them, equal what the in-memory model had."""
    model, _ = load(cut.folder)
    state = model.state_dict()
    for name, values in cut.values.items():
        assert torch.equal(state[name], values), name


def test_tied_head_and_embedding_share_the_codes(tiny, cutter, tmp_path):
    cut = cutter(tiny("llama-tied", "float16"), tmp_path, "compressed-tensors", uniform(Int(8, 32)))
    held = open_tensors(tmp_path)
    assert held["model.embed_tokens.weight"].dtype == "I8"
    assert "lm_head.weight_scale" in held and "lm_head.weight" not in held
    assert cut.format.verify(tmp_path, cut.logits, cut.tokens)["logit_error"] < 1e-5


def test_members_of_a_group_share_one_scheme(tiny, cutter, tmp_path):
    cutter(tiny("llama", "float16"), tmp_path, "compressed-tensors", cutter.rotate(Int(2, 32), Int(3, 32), Int(4, 32)))
    groups = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["config_groups"].values()
    for trio in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        for layer in range(2):
            holders = {
                i for i, g in enumerate(groups) for t in g["targets"] if f"layers.{layer}." in t and t.endswith(trio)
            }
            assert len(holders) == 1


def test_config_names_what_is_left_alone(tiny, cutter, tmp_path):
    keep_o = lambda form, unit: Keep() if "o_proj" in unit.name or unit.kind != "linear" else Int(4, 32)  # noqa: E731
    cutter(tiny("llama", "float16"), tmp_path, "compressed-tensors", keep_o)
    ignore = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["ignore"]
    assert ignore == [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.self_attn.o_proj",
        "model.layers.1.self_attn.o_proj",
    ]


def test_all_kept_is_a_plain_model(tiny, cutter, tmp_path):
    cut = cutter(tiny("llama", "float16"), tmp_path, "compressed-tensors", lambda form, unit: Keep())
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert cut.format.verify(tmp_path, cut.logits, cut.tokens)["logit_error"] < 1e-5


LINEAR = Unit("m", "linear", (Matrix("m.weight", 8, 96, "m"),))
EMBEDDING = Unit("e", "embedding", (Matrix("e.weight", 8, 96, "e"),))
EXPERT = Unit("x", "experts", (Matrix("mlp.experts.0.up_proj.weight", 8, 96, "m"),))
STACK = Unit("x", "experts", (Matrix("mlp.experts.gate_up_proj", 8, 96, "m", index=0),))
REFUSED = [
    (LINEAR, Int(4, 128), "rows of 96 do not divide into groups of 128"),
    (Unit("m", "linear", (Matrix("m.weight", 8, 40, "m"),)), Nvfp4(), "rows of 40 do not divide into groups of 16"),
    (EMBEDDING, Int(4, 32), "an embedding at 8 bits or not at all"),
    (EMBEDDING, Nvfp4(), "an embedding at 8 bits or not at all"),
    (EMBEDDING, Int(8, 32, symmetric=False, zero="fp8"), "an embedding at 8 bits or not at all"),
    (LINEAR, Int(4, 0, symmetric=False, zero="fp8"), "a zero point for a whole row"),
    (EXPERT, Nvfp4(), "one kind of scale"),
    (EXPERT, Int(4, 32, symmetric=False), "one kind of scale"),
    (EXPERT, Int(4, 32, scale="fp8"), "one kind of scale"),
    (STACK, Int(4, 32), "no names for one of them"),
    (Unit("c", "linear", (Matrix("c.weight", 8, 96, "c", transposed=True),)), Int(4, 32), "the other way round"),
    (Unit("c", "conv", (Matrix("c.weight", 8, 96, "c"),)), Int(4, 32), "convolutions"),
    (Unit("p", "linear", (Matrix("p", 8, 96, "p"),)), Int(4, 32), "not called `weight`"),
]


@pytest.mark.parametrize(("unit", "edit", "why"), REFUSED)
def test_refuses_with_a_reason(unit, edit, why):
    assert why in (CompressedTensors("bfloat16", model_type="gpt_oss").refuses(unit, edit) or "")


def test_refuses_four_bit_floats_outside_bfloat16():
    assert CompressedTensors("bfloat16").refuses(LINEAR, Mxfp4()) is None
    assert "this model is float16" in (CompressedTensors("float16").refuses(LINEAR, Mxfp4()) or "")


def test_zero_points_as_the_reader_takes_them():
    edit = Int(4, 32, symmetric=False)
    assert asymmetric_reloads() is (CompressedTensors().refuses(LINEAR, edit) is None)
    assert CompressedTensors(zeros="packed").layout(LINEAR, edit, "float16")["m.weight_zero_point"] == ("I32", (1, 3))
    assert CompressedTensors(zeros="bytes").layout(LINEAR, edit, "float16")["m.weight_zero_point"] == ("I8", (8, 3))
    assert "a zero point for a whole row" in CompressedTensors(zeros="bytes").refuses(LINEAR, Int(4, 0, False))


def test_packed_zero_points_are_those_of_the_library():
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    from secateur.export._codecs import codec

    zero = torch.randint(8, (8, 3), generator=torch.Generator().manual_seed(0))
    codes, scale = torch.zeros(8, 96, dtype=torch.int16), torch.ones(8, 3)
    made = codec(Int(3, 32, symmetric=False)).encode({"codes": codes, "scale": scale, "zero": zero}, "F16")
    read = helpers.unpack_from_int32(made["weight_zero_point"], 3, torch.Size((8, 3)), packed_dim=0)
    assert torch.equal(read.long() + 4, zero)


def test_experts_must_be_alike():
    units = [Unit(f"x{i}", "experts", (Matrix(f"l.{i}.mlp.experts.0.up_proj.weight", 8, 96, "m"),)) for i in range(2)]
    form = CompressedTensors("float16", model_type="qwen3_moe")
    assert form.alike([*units, LINEAR]) == (("x0", "x1"),)
    assert form.alike([LINEAR, EMBEDDING]) == ()
    with pytest.raises(ExportError, match=r"`x0` is to be int\(bits=3, group=32\) and `x1` int\(bits=4, group=32\)"):
        form.quantization_config({"x0": Int(3, 32), "x1": Int(4, 32)}, units)


def test_fused_experts_get_the_names_that_files_have():
    stack = Unit(
        "x", "experts", tuple(Matrix("model.layers.0.mlp.experts.gate_up_proj", 8, 32, "m", i) for i in range(2))
    )
    layout = CompressedTensors("float16", model_type="qwen3_moe").layout(stack, Int(4, 32), "float16")
    assert layout["model.layers.0.mlp.experts.1.up_proj.weight_packed"] == ("I32", (4, 4))
    assert {name.rpartition(".")[0].rpartition("experts.")[2] for name in layout} == {
        "0.gate_proj",
        "0.up_proj",
        "1.gate_proj",
        "1.up_proj",
    }


def test_unknown_edits_are_refused_and_never_written():
    assert CompressedTensors().refuses(LINEAR, object()) == "compressed-tensors has no such grid"
    with pytest.raises(ExportError, match="cannot hold"):
        CompressedTensors().layout(LINEAR, object(), "float16")


def test_wrong_weights_are_an_error(tiny, cutter, tmp_path):
    cut = cutter(tiny("llama", "float16"), tmp_path, "compressed-tensors", uniform(Int(4, 32)))
    with pytest.raises(ExportError, match="its logits differ from ours by"):
        cut.format.verify(tmp_path, cut.logits * 1.01, cut.tokens)
    with pytest.raises(ExportError, match="its logits differ from ours by nan"):
        cut.format.verify(tmp_path, cut.logits * float("nan"), cut.tokens)


def test_a_file_that_does_not_load_is_an_error(tiny, cutter, tmp_path):
    cut = cutter(tiny("llama", "float16"), tmp_path, "compressed-tensors", uniform(Int(4, 32)))
    plan = Plan({**cut.plan.edits, "model.layers.0.self_attn.o_proj": Keep()}, {}, 0.0, 0.0, 0.0)
    cut.format.finish(tmp_path, json.loads((tmp_path / "config.json").read_text()), plan, cut.units)
    with pytest.raises(ExportError, match=r"(missing|unexpected|cannot read)"):
        cut.format.verify(tmp_path, cut.logits, cut.tokens)
