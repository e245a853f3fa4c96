"""Every family through the front door: a tiny random checkpoint is cut, written, and read back by its runtime."""

from __future__ import annotations

import json

import pytest

from secateur.cut import cut, inspect
from secateur.model.checkpoint import open_tensors
from secateur.parts import edits
from secateur.parts.menus import load_menu

#: the format that holds most of the family, and a budget that makes the plan choose
FAMILIES = {
    "llama": ("compressed-tensors", "5 bits/weight"),
    "llama-tied": ("compressed-tensors", "50% bytes"),
    "mistral": ("compressed-tensors", "5 bits/weight"),
    "qwen2": ("compressed-tensors", "5 bits/weight"),
    "qwen3": ("compressed-tensors", "5 bits/weight"),
    "gemma": ("compressed-tensors", "50% bytes"),
    "gemma2": ("compressed-tensors", "50% bytes"),
    "gemma3": ("compressed-tensors", "50% bytes"),
    "phi3": ("compressed-tensors", "5 bits/weight"),
    "opt": ("compressed-tensors", "60% bytes"),
    "opt-projected": ("packed", "4 bits/weight"),
    "gpt2": ("packed", "4 bits/weight"),
    "gpt_neox": ("compressed-tensors", "5 bits/weight"),
    "mixtral": ("compressed-tensors", "6 bits/weight"),
    "qwen2_moe": ("compressed-tensors", "6 bits/weight"),
    "qwen3_moe": ("compressed-tensors", "7 bits/weight"),
    # no table of ours: the generic path
    "olmo2": ("compressed-tensors", "5 bits/weight"),
    "gpt_oss": ("packed", "4 bits/weight"),
    "bloom": ("packed", "4 bits/weight"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_cut_written_and_read_back(name, tiny, text, tmp_path, quick):
    format, budget = FAMILIES[name]
    result = cut(str(tiny(name)), str(text), budget, out=tmp_path / "out", format=format, **quick)
    holds(result, tmp_path / "out")
    assert result["coverage"] > 0.9
    named = {unit["unit"] for unit in inspect(str(tiny(name)))["skipped"]}
    assert named <= {one["unit"] for one in result["skipped"]}


PINS = {
    "gpt2": {"*.mlp.*": "int(bits=3, group=32)", "attn": "fp8()"},
    "mixtral": {"*.experts.*": "int(bits=3, group=32)", "self_attn": "fp8()"},
}


@pytest.mark.parametrize("name", PINS)
def test_plain_safetensors_hold_what_is_pinned(name, tiny, text, tmp_path, quick):
    pin = PINS[name]
    result = cut(str(tiny(name)), str(text), "100%", out=tmp_path, format="safetensors", pin=pin, **quick)
    holds(result, tmp_path)
    assert set(pin.values()) <= set(result["edits"].values())
    assert result["damage_measured"] != 0


def names(folder):
    return [unit["unit"] for unit in inspect(str(folder))["units"]]


def test_experts_that_must_be_cut_alike_are_one_row(tiny, text, tmp_path, quick):
    units = [unit for unit in names(tiny("mixtral")) if ".experts." in unit]
    result = cut(str(tiny("mixtral")), str(text), "7 bits/weight", out=tmp_path, **quick)
    holds(result, tmp_path)
    (row,) = [row for row in result["edits"] if ".experts." in row]
    assert len(units) == 4 and row == "model.layers.*.mlp.experts.*"
    menu = load_menu(tmp_path / "menu")
    assert row in [unit.name for unit in menu.units]
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert (
        sum(any("experts" in target for target in group["targets"]) for group in config["config_groups"].values()) == 1
    )
    # the price of the row is what all of them take in the file
    at = [unit.name for unit in menu.units].index(row)
    edit = [edits.text(edit) for edit in menu.edits].index(result["edits"][row])
    stored = {name: entry for name, entry in open_tensors(tmp_path).items() if ".experts." in name}
    assert menu.cost["payload"][at, edit] == sum(entry.bytes for entry in stored.values())


def test_a_pin_or_keep_of_one_expert_layer_is_one_of_all(tiny, text, tmp_path, quick):
    pin = {"model.layers.1.mlp.experts.down": "int(bits=4, group=32)"}
    result = cut(str(tiny("mixtral")), str(text), "80% bytes", out=tmp_path, pin=pin, format="packed", **quick)
    assert result["edits"]["model.layers.1.mlp.experts.down"] == "int(bits=4, group=32)"
    assert "model.layers.*.mlp.experts.*" not in result["edits"]  # packed reads every unit on its own
    result = cut(
        str(tiny("mixtral")), str(text), "95% bytes", out=tmp_path / "kept", keep=("layers.0.mlp.experts",), **quick
    )
    holds(result, tmp_path / "kept")
    assert result["edits"]["model.layers.*.mlp.experts.*"] == "keep()"
    reasons = {one["unit"]: one["reason"] for one in result["skipped"]}
    assert reasons["model.layers.*.mlp.experts.*"] == "kept by --keep layers.0.mlp.experts"


def holds(result, out):
    """What must be true of every result."""
    on_disk = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    assert result["spent"]["bytes"] == result["export"]["bytes_on_disk"] == on_disk
    for resource, cap in result["budget"].items():
        if resource != "asked":
            assert result["spent"][resource] <= cap
    assert result["export"]["logit_error"] < 1e-3
    assert result["damage_predicted"] >= result["damage_floor"] >= 0
    assert result["kl"] >= 0
    assert all(one["reason"] for one in result["skipped"])
    assert not (out / ".work").exists()
