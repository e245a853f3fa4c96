"""The menu for vLLM: only what it has kernels for, in a file that transformers reads as well."""

from __future__ import annotations

import json

import pytest

from secateur.export import find
from secateur.export.vllm import EDITS
from secateur.model.checkpoint import open_tensors
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import Matrix, Unit

pytest.importorskip("compressed_tensors")


def unit(kind):
    return Unit("one", kind, (Matrix("one.weight", 64, 128, "one"),), 0)


@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_no_zero_points_and_scales_of_the_model_s_own_type(edit):
    if isinstance(edit, Int):
        assert edit.bits in (4, 8) and edit.symmetric and not edit.scale and not edit.zero
    assert find("vllm").refuses(unit("linear"), edit) is None


def test_what_it_has_no_kernel_for():
    form = find("vllm")
    for edit in (Int(3, 32), Int(4, 32, False), Int(4, 32, scale="fp8"), Int(5, 0)):
        assert form.refuses(unit("linear"), edit) == "vllm has no kernel for it"
    assert form.refuses(unit("embedding"), Int(8, 0)) == "vllm leaves embeddings as they are"
    assert form.refuses(unit("embedding"), Keep()) is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_mix_lies_in_the_file_as_vllm_wants_it(tiny, cutter, tmp_path, dtype):
    mix = [edit for edit in EDITS if isinstance(edit, Int) and not edit.group % 32]

    def choose(form, one):
        able = [edit for edit in mix if form.refuses(one, edit) is None]
        return able[len(one.name) % len(able)] if able else Keep()

    cut = cutter(tiny("llama", dtype), tmp_path, "vllm", choose)
    assert cut.format.verify(tmp_path, cut.logits, cut.tokens)["logit_error"] < 1e-5
    about = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    weights = [group["weights"] for group in about["config_groups"].values()]
    assert len(weights) > 1 and {one["strategy"] for one in weights} <= {"group", "channel"}
    assert all(one["symmetric"] for one in weights)
    stored = open_tensors(tmp_path)
    assert not any(name.endswith("zero_point") for name in stored)
    scales = {entry.dtype for name, entry in stored.items() if name.endswith("weight_scale")}
    assert scales == {"F16" if dtype == "float16" else "BF16"}
    assert "model.embed_tokens" in about["ignore"]
