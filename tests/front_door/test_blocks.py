"""Whole blocks left out: what is written is a plain model with fewer of them, and it is the one that was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.cut import apply, cut, survey
from secateur.export._verify import load
from secateur.model.checkpoint import open_tensors
from secateur.parts.edits import parse
from secateur.types import ExportError, ModelError, Plan, PlanError

#: depth, which block goes, and settings; what is told apart by number must still be
FAMILIES = {
    "llama": {"num_hidden_layers": 4},
    "gpt2": {"n_layer": 3},
    "gemma2": {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8},
    "mixtral": {"num_hidden_layers": 3},
    "qwen2_moe": {"num_hidden_layers": 3, "mlp_only_layers": [0, 2], "layer_types": ["full_attention"] * 3},
}


def without(menu, *blocks: int, format: str = "safetensors") -> Plan:
    """Those blocks left out, all else as it is."""
    edits = {unit.name: parse("drop()" if unit.block in blocks else "keep()") for unit in menu.units}
    return Plan(edits, {}, math.nan, math.nan, math.nan, "", {**menu.about, "format": format})


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_loads_what_is_left(name, tiny, text, quick, tmp_path):
    model = str(tiny(name, **FAMILIES[name]))
    menu = survey(model, str(text), format="safetensors", edits="drop", out=tmp_path / "menu", **quick)
    drop = [str(edit) for edit in menu.edits].index("drop()")
    can = np.isfinite(menu.damage[:, drop])
    depth = next(n for key, n in FAMILIES[name].items() if key in ("num_hidden_layers", "n_layer"))
    assert {unit.block for unit, able in zip(menu.units, can, strict=True) if able} == set(range(1, depth))
    assert not any(unit.block in range(1, depth) for unit, able in zip(menu.units, can, strict=True) if not able)
    lost = [menu.damage[[unit.block == block for unit in menu.units], drop].sum() for block in range(1, depth)]
    assert min(lost) > 0 and (menu.cost["bytes"][can, drop] == 0).all()

    result = apply(model, without(menu, 1), data=str(text), out=tmp_path / "out", menu=tmp_path / "menu", **quick)
    assert "transformers" in result["export"]["verified_in"] and result["export"]["logit_error"] < 1e-5
    assert result["spent"]["bytes"] == result["export"]["bytes_on_disk"] and result["kl"] > 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "secateur_shapes" not in config and depth - 1 in (config.get("num_hidden_layers"), config.get("n_layer"))
    if "mlp_only_layers" in FAMILIES[name]:
        assert config["mlp_only_layers"] == [0, 1]
    if name == "gemma2":
        assert config["layer_types"] == ["sliding_attention", "sliding_attention", "full_attention"]
    _, said = load(tmp_path / "out")
    assert not any(said[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    assert not any(f".{depth - 1}." in name for name in open_tensors(tmp_path / "out") if "experts" not in name)
    if name == "llama":  # another library says the same of the whole: blocks taken out of the loaded model
        whole, _ = load(Path(model))
        del whole.model.layers[1]
        cut_, _ = load(tmp_path / "out")
        tokens = torch.arange(24)[None]
        with torch.no_grad():
            assert torch.equal(whole(tokens, use_cache=False).logits, cut_(tokens, use_cache=False).logits)


@pytest.mark.parametrize("format", ["safetensors", "compressed-tensors"])
def test_a_cap_on_flops_and_on_the_cache(tiny, text, quick, tmp_path, format):
    model = str(tiny("llama", num_hidden_layers=4))
    edits = "drop" if format == "safetensors" else "bits,drop"
    result = cut(model, str(text), "80% flops, 80% kv, 90% bytes", format=format, edits=edits, out=tmp_path, **quick)
    assert all(result["spent"][one] <= result["budget"][one] for one in ("flops", "kv", "bytes"))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_hidden_layers"] < 4 and result["export"]["logit_error"] < 1e-3
    assert result["spent"]["bytes"] == (tmp_path / "model.safetensors").stat().st_size


def test_bits_of_the_layers_of_a_block_differ(tiny, text, quick, tmp_path):
    """What is left is coded layer by layer, under its new name."""
    model = str(tiny("llama", num_hidden_layers=3))
    menu = survey(model, str(text), format="compressed-tensors", edits="bits,drop", out=tmp_path / "menu", **quick)
    plan = without(menu, 1, format="compressed-tensors")
    words = ("int(bits=8, group=0)", "keep()", "int(bits=4, group=32)", "int(bits=3, group=32)")
    rows = [unit.name for unit in menu.units if unit.block == 2]
    plan.edits.update(zip(rows, map(parse, words), strict=True))  # type: ignore[attr-defined]
    result = apply(model, plan, data=str(text), out=tmp_path / "out", menu=tmp_path / "menu", **quick)
    assert result["export"]["logit_error"] < 1e-3
    told = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["config_groups"]
    targets = {target for group in told.values() for target in group["targets"]}
    assert targets == {f"model.layers.1.{path}" for path in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"
    )}  # fmt: skip


def test_what_cannot_be(tiny, text, quick, tmp_path):
    model = str(tiny("llama", num_hidden_layers=4))
    menu = survey(model, str(text), format="safetensors", edits="drop", out=tmp_path / "menu", **quick)
    with pytest.raises(PlanError, match="the first block stays"):
        apply(model, without(menu, 0), data=str(text), out=tmp_path / "out", menu=tmp_path / "menu", **quick)
    half = without(menu, 2)
    half.edits["model.layers.2.mlp.down_proj"] = parse("keep()")  # type: ignore[index]
    with pytest.raises(PlanError, match="leaves out whole blocks"):
        apply(model, half, data=str(text), out=tmp_path / "out", menu=tmp_path / "menu", **quick)
    with pytest.raises(ExportError, match="one scheme for all experts"):
        survey(str(tiny("mixtral")), str(text), format="compressed-tensors", edits="drop", out=tmp_path / "m", **quick)
    with pytest.raises(ModelError, match="divide by their own number"):
        model = str(tiny("gpt2", scale_attn_by_inverse_layer_idx=True))
        survey(model, str(text), format="safetensors", edits="drop", out=tmp_path / "g", **quick)
