"""`secateur cut` and its three steps: what is asked, what is spent, what is told, what lies on disk."""

from __future__ import annotations

import json
import math
from fnmatch import fnmatchcase

import pytest

from secateur.cut import apply, cut, plan, survey
from secateur.model.checkpoint import open_checkpoint
from secateur.parts.edits import text as text_of
from secateur.parts.menus import load_menu, load_plan, save_plan
from secateur.types import PlanError

#: what scripts may rely on, and the type of each
CONTRACT = {
    "budget": dict,
    "spent": dict,
    "loss_before": float,
    "loss_after": float,
    "damage_predicted": float,
    "damage_error": float,
    "damage_measured": float,
    "seconds": float,
    "peak_rss_bytes": int,
    "resumed": bool,
    "coverage": float,
    "skipped": list,
    "export": dict,
}
EXPORT = {"format": str, "files": list, "bytes_on_disk": int, "verified_in": str, "logit_error": float}


@pytest.fixture(scope="module")
def llama(tiny):
    return tiny("llama")


@pytest.fixture(scope="module")
def menu(llama, text, tmp_path_factory, quick):
    """A surveyed Llama, embeddings and head included."""
    folder = tmp_path_factory.mktemp("menus") / "menu"
    survey(str(llama), str(text), out=folder, **quick)
    return folder


@pytest.fixture(scope="module")
def said(secateur, llama, text, tmp_path_factory):
    """A whole job as a process: its folder, and the process."""
    out = tmp_path_factory.mktemp("jobs") / "out"
    words = ("--budget", "5 bits/weight, 90% bytes", "-o", out, "--samples", 12, "--seq-len", 32, "--json")
    return out, secateur("cut", llama, "--data", text, *words)


def test_the_json_object_of_the_contract(said):
    out, process = said
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert {key: type(result[key]) for key in CONTRACT} == CONTRACT
    assert {key: type(result["export"][key]) for key in EXPORT} == EXPORT
    assert all(set(one) == {"unit", "reason"} for one in result["skipped"])
    assert json.loads((out / "secateur.json").read_text()).items() <= result.items()


def test_the_budget_is_told_as_asked_and_in_absolute_numbers(said, llama):
    result = json.loads(said[1].stdout)
    whole = sum(file.stat().st_size for file in llama.glob("*.safetensors"))
    assert result["budget"]["asked"] == "5 bits/weight, 90% bytes"
    assert result["budget"]["bits_per_weight"] == 5
    assert result["budget"]["bytes"] == pytest.approx(0.9 * whole, rel=0.02)  # our headers are padded
    assert set(result["budget"]) == {"asked", "bits_per_weight", "bytes"}


def test_what_is_spent_is_on_disk_and_within_the_budget(said, llama):
    out, process = said
    result = json.loads(process.stdout)
    (file,) = result["export"]["files"]
    assert result["spent"]["bytes"] == result["export"]["bytes_on_disk"] == (out / file).stat().st_size
    assert result["spent"]["bits_per_weight"] <= 5
    weights = sum(entry.size for entry in open_checkpoint(llama).tensors.values())
    payload = sum(entry.bytes for entry in open_checkpoint(out, quantized=True).tensors.values())
    assert result["spent"]["bits_per_weight"] == 8 * payload / weights


def test_what_is_told_fits_together(said):
    result = json.loads(said[1].stdout)
    assert result["damage_measured"] == pytest.approx(result["loss_after"] - result["loss_before"])
    assert 0 < result["damage_error"] < math.inf
    assert result["loss_before"] > 1
    assert 0.9 < result["coverage"] <= 1
    assert not result["resumed"]
    assert result["peak_rss_bytes"] > 2**26
    assert result["export"]["logit_error"] < 1e-3
    assert "transformers" in result["export"]["verified_in"]


def test_what_lies_in_the_folder(said, llama):
    out, process = said
    assert {file.name for file in out.iterdir()} - {"report.html"} == {
        "config.json",
        "examples.json",
        "generation_config.json",
        "menu",
        "model.safetensors",
        "plan.yaml",
        "windows.json",
        "secateur.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (out / "tokenizer.json").read_bytes() == (llama / "tokenizer.json").read_bytes()
    kept = {file.name for file in (out / "menu" / ".work").iterdir()}
    assert kept == {"factors", "job.json"}  # for another budget; probes and hidden states are gone
    assert process.stderr.strip().splitlines()[-1].startswith("again: secateur cut ")


def test_what_was_held_back_is_left_as_a_map(said):
    known, lost = (json.loads((said[0] / f"{name}.json").read_text()) for name in ("examples", "windows"))
    n = known["all"]
    assert n == len(known["said"]) == len(known["children"]) + 1 == len(lost["kl"]) == len(lost["right"]) >= 3
    assert sum(lost["kl"]) / n == pytest.approx(json.loads(said[1].stdout)["kl"])
    assert sorted(child for pair in known["children"] for child in pair) == list(range(2 * n - 2))
    assert all(len(words.split()) > 3 for words in known["said"]) and "first" not in lost
    page = (said[0] / "report.html").read_text()
    assert "Where it hurt" in page and '"examples":' in page


def test_three_steps_are_one(said, llama, text, menu, tmp_path, quick):
    (chosen,) = plan(menu, ["5 bits/weight, 90% bytes"])
    save_plan(chosen, tmp_path / "plan.yaml")
    result = apply(str(llama), tmp_path / "plan.yaml", data=str(text), out=tmp_path / "out", menu=menu, **quick)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (said[0] / file).read_bytes()
    told = json.loads(said[1].stdout)
    for key in ("budget", "spent", "damage_predicted", "loss_after", "skipped", "coverage", "edits"):
        assert result[key] == told[key], key


def test_without_the_menu_the_statistics_are_gathered_anew(said, llama, text, menu, tmp_path, quick):
    (chosen,) = plan(load_menu(menu), ["5 bits/weight, 90% bytes"])
    apply(str(llama), chosen, data=str(text), out=tmp_path, **quick)
    assert (tmp_path / "model.safetensors").read_bytes() == (said[0] / "model.safetensors").read_bytes()


def test_a_plan_changed_by_hand_is_priced_anew(llama, text, menu, tmp_path, quick):
    (chosen,) = plan(menu, ["100%"])
    file = tmp_path / "plan.yaml"
    save_plan(chosen, file)
    page = file.read_text()
    assert "lm_head: keep()" in page
    known = load_menu(menu)
    edit = next(text_of(e) for e, d in zip(known.edits, known.damage[-1], strict=True) if 0 < d < math.inf)
    file.write_text(page.replace("lm_head: keep()", f"lm_head: {edit}"))
    for known in (menu, None):
        result = apply(str(llama), file, data=str(text), out=tmp_path / "out", menu=known, **quick)
        assert result["edits"]["lm_head"] == edit
        assert result["spent"]["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
        assert result["spent"]["bits_per_weight"] < 16
        # without its menu nobody knows what it will damage
        assert (result["damage_predicted"] > 0) if known else math.isnan(result["damage_predicted"])


@pytest.mark.parametrize("budget", ["60000", "0.06 MB", "36% bytes", "6 bits/weight", "6 bits, 62 KB", "40%, 61 KB"])
def test_every_way_to_say_a_budget(menu, budget):
    (chosen,) = plan(menu, [budget])
    caps = chosen.about["caps"]
    assert caps and all(chosen.spent[name] <= cap for name, cap in caps.items())
    assert any(chosen.spent[name] > 0.9 * cap for name, cap in caps.items())
    assert chosen.bound <= chosen.damage


def test_two_caps_bind_together(menu):
    loose, bits, size, both = plan(menu, ["100%", "5 bits/weight", "55 KB", "5 bits/weight, 55 KB"])
    assert both.spent["bits_per_weight"] <= 5 and both.spent["bytes"] <= 55_000
    assert both.damage >= max(bits.damage, size.damage) >= loose.damage == 0


def test_linear_leaves_embedding_head_and_norms_as_they_are(llama, text, tmp_path, quick):
    result = cut(str(llama), str(text), "4 bits/weight", out=tmp_path, over="linear", **quick)
    before, after = open_checkpoint(llama), open_checkpoint(tmp_path, quantized=True)
    outside = [name for name in before.tensors if "proj" not in name]
    assert len(outside) == 7
    for name in outside:
        assert (before.read(name) == after.read(name)).all()
    inside = sum(entry.bytes for name, entry in after.tensors.items() if name not in outside)
    cut_weights = sum(entry.size for name, entry in before.tensors.items() if name not in outside)
    assert result["spent"]["bits_per_weight"] == 8 * inside / cut_weights <= 4
    reasons = {one["unit"]: one["reason"] for one in result["skipped"]}
    assert "--over linear" in reasons["model.embed_tokens"] and "--over linear" in reasons["lm_head"]


def test_kept_and_pinned_units(llama, text, tmp_path, quick):
    keep = ("*.o_proj", "layers.1.mlp.gate_up")
    pin = {"*.down_proj": "int(bits=4, group=32)", "embed_tokens": "int(bits=8, group=0)"}
    result = cut(str(llama), str(text), "8 bits/weight", out=tmp_path, keep=keep, pin=pin, **quick)
    reasons = {one["unit"]: one["reason"] for one in result["skipped"]}
    for name, edit in result["edits"].items():
        if fnmatchcase(name, "*.o_proj"):
            assert edit == "keep()" and reasons[name] == "kept by --keep *.o_proj"
        elif name == "model.layers.1.mlp.gate_up":
            assert edit == "keep()" and reasons[name] == "kept by --keep layers.1.mlp.gate_up"
        elif fnmatchcase(name, "*.down_proj"):
            assert edit == "int(bits=4, group=32)"
        else:
            assert edit != "keep()", name
    assert result["edits"]["model.embed_tokens"] == "int(bits=8, group=0)"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"keep": ("*.no_proj",)}, "`\\*.no_proj` matches no unit"),
        ({"pin": {"embed_tokens": "int(bits=3, group=64)"}}, "cannot be int\\(bits=3, group=64\\): transformers reads"),
        ({"pin": {"lm_head": "fp8()"}, "over": "linear"}, "`lm_head` matches no unit inside the blocks"),
        ({"pin": {"*.o_proj": "fp8()", "layers.0": "keep()"}}, "pin `model.layers.0.self_attn.o_proj` to two edits"),
    ],
)
def test_patterns_that_cannot_be_met(llama, text, tmp_path, quick, how, message):
    with pytest.raises(PlanError, match=message):
        cut(str(llama), str(text), "8 bits/weight", out=tmp_path, **how, **quick)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_tied_matrix_is_cut_once_and_counted_once(tiny, text, tmp_path, quick):
    result = cut(str(tiny("llama-tied")), str(text), "5 bits/weight", out=tmp_path, format="packed", **quick)
    assert "lm_head" not in result["edits"]
    assert result["edits"]["model.embed_tokens"] != "keep()"
    assert result["spent"]["bytes"] == (tmp_path / "packed.safetensors").stat().st_size


def test_another_format_in_the_same_folder_leaves_nothing_of_the_first(llama, text, tmp_path, quick):
    for format, file in (("packed", "packed.safetensors"), ("compressed-tensors", "model.safetensors")):
        result = cut(str(llama), str(text), "8 bits/weight", out=tmp_path, format=format, over="linear", **quick)
        assert result["export"]["files"] == [file]
        assert [found.name for found in tmp_path.glob("*.safetensors")] == [file]


def test_kept_weights_keep_their_number_type(tiny, text, tmp_path, quick):
    """A head in float32 beside weights in bfloat16 stays what it is."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny("llama", "bfloat16").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn_like(tensors["lm_head.weight"], dtype=torch.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    result = cut(str(folder), str(text), "10 bits/weight", out=tmp_path / "out", keep=("lm_head",), **quick)
    kept = load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"]
    assert torch.equal(kept, tensors["lm_head.weight"])
    assert result["spent"]["bytes"] == result["export"]["bytes_on_disk"]


@pytest.mark.parametrize(
    ("name", "budget", "how"),
    [
        ("stories260k", "6 bits/weight", {"format": "packed"}),
        ("lm-small", "13 bits/weight", {"over": "linear", "keep": ("layers.[2-7]",)}),
    ],
)
def test_real_models(shared, tmp_path, name, budget, how):
    data = shared / "data" / ("stories.txt" if name == "stories260k" else "lm/calib.txt")
    result = cut(str(shared / "models" / name), str(data), budget, out=tmp_path, samples=16, seq_len=64, **how)
    (file,) = result["export"]["files"]
    assert result["spent"]["bytes"] == (tmp_path / file).stat().st_size
    assert result["spent"]["bits_per_weight"] <= result["budget"]["bits_per_weight"]
    assert result["export"]["logit_error"] < 1e-3
    assert result["kl"] < 0.2


def test_what_a_plan_says_is_what_is_applied(menu, tmp_path):
    (chosen,) = plan(menu, ["5 bits/weight"])
    save_plan(chosen, tmp_path / "plan.yaml")
    again = load_plan(tmp_path / "plan.yaml")
    assert (again.edits, again.spent, again.damage, again.bound) == (
        chosen.edits,
        chosen.spent,
        chosen.damage,
        chosen.bound,
    )
    assert again.about["caps"] == chosen.about["caps"]
