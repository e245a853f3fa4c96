"""Language models that lose channels, heads and parts: priced, cut, written, and seen to load in every runtime."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.cut import apply, cut, plan, survey
from secateur.measure import llamacpp
from secateur.parts.edits import parse
from secateur.parts.menus import load_menu
from secateur.parts.reading import network, open_reading
from secateur.types import BudgetError, ExportError, Plan, PlanError


@pytest.fixture(scope="module")
def model(tiny):
    """Four KV heads with two query heads each, so that some can go; three blocks."""
    return tiny("llama", num_attention_heads=8, num_key_value_heads=4, num_hidden_layers=3, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def menu(model, text, quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("menu")
    return folder, survey(str(model), str(text), format="packed", edits="bits,channels,heads,drop", out=folder, **quick)


def by_hand(menu, **edits: str) -> Plan:
    """Every row as it is, but those whose names end like this."""
    chosen = {unit.name: parse("keep()") for unit in menu.units}
    for where, words in edits.items():
        name = f"model.layers.{where[-1]}.{where[:-1].rstrip('_')}.*"
        assert name in chosen
        chosen[name] = parse(words)
    nan = math.nan
    return Plan(chosen, {}, nan, nan, nan, "", dict(menu.about))


def test_a_row_holds_both_sides_and_what_it_can_lose(menu):
    _, menu = menu
    assert [unit.name for unit in menu.units[1:4]] == [
        "model.layers.0.self_attn.*", "model.layers.0.mlp.*", "model.layers.1.self_attn.*"
    ]  # fmt: skip
    costs = {str(edit): menu.cost["kv"][1, e] for e, edit in enumerate(menu.edits)}
    # keys and values of 8 numbers and 2 bytes
    assert costs["keep()"] == 4 * 2 * 2 * 8 and costs["heads(keep=0.5)"] == 2 * 2 * 2 * 8 and costs["drop()"] == 0
    mlp = {str(edit): menu.cost["flops"][2, e] for e, edit in enumerate(menu.edits)}
    assert mlp["keep()"] == 2 * 3 * 64 * 96 and mlp["channels(keep=0.5)"] == mlp["keep()"] / 2
    assert np.isinf(costs["channels(keep=0.5)"]) and menu.fixed["kv"] == 0
    assert (menu.damage[np.isfinite(menu.damage)] >= 0).all()


def test_the_joint_menu_is_never_worse_than_bits_alone(menu, model, text, quick, tmp_path):
    bits = survey(str(model), str(text), format="packed", out=tmp_path, **quick)
    for budget in ("5 bits/weight", "40% bytes", "3.1 bits/weight"):
        (alone,), (joint,) = plan(bits, [budget]), plan(menu[1], [budget])
        assert joint.damage <= alone.damage * 1.01  # a step of one row: there are six


def test_two_caps_at_once(model, text, quick, tmp_path):
    edits = "bits,channels,heads,drop"  # what reads it here puts low ranks together again
    result = cut(
        str(model), str(text), "60% flops, 110 KB, 60% kv", out=tmp_path, format="packed", edits=edits, **quick
    )
    caps, spent = result["budget"], result["spent"]
    assert all(spent[name] <= caps[name] for name in ("flops", "bytes", "kv"))
    assert spent["bytes"] == (tmp_path / "packed.safetensors").stat().st_size
    assert result["export"]["logit_error"] < 1e-5
    # what reads it is the network that was counted
    from torch.utils.flop_counter import FlopCounterMode

    smaller = network(tmp_path)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        smaller(torch.arange(8)[None])
    ops = counter.get_flop_counts()["Global"]
    assert ops[torch.ops.aten.mm] == 8 * spent["flops"]
    with pytest.raises(BudgetError, match="the cheapest plan on this menu needs"):
        plan(load_menu(tmp_path / "menu"), ["1% flops"])


@pytest.mark.parametrize("format", ["packed", "torch-export", "gguf"])
def test_parts_that_are_gone_are_not_in_the_file(menu, model, text, quick, tmp_path, format, request):
    """No attention in one block, no MLP in another, a layer gone, and one with fewer heads and channels."""
    if format == "gguf":
        request.getfixturevalue("llama")
    mlps = {} if format == "gguf" else {"mlp0": "drop()", "mlp1": "drop()"}  # llama.cpp leaves out attentions alone
    chosen = by_hand(
        menu[1],
        self_attn0="heads(keep=0.5)",
        self_attn1="drop()",
        self_attn2="drop()",
        mlp2="channels(keep=0.6667)",
        **mlps,
    )
    chosen.about["format"] = format
    result = apply(str(model), chosen, data=str(text), out=tmp_path, menu=menu[0], **quick)
    export = result["export"]
    assert result["spent"]["bytes"] == export["bytes_priced"]
    assert export["logit_error"] is not None and export["logit_error"] < export.get("logit_limit", 1e-5)
    assert result["spent"]["kv"] == 2 * 2 * 2 * 8
    if format == "packed":
        names = set(open_reading(tmp_path).tensors)
        assert not any("layers.1." in name for name in names) and "model.layers.2.mlp.up_proj.weight" in names
    if format == "gguf":
        held = llamacpp.folder() is not None
        assert ("llama.cpp" in export["verified_in"]) == held
        assert struct.unpack("<4s", (tmp_path / "model.gguf").read_bytes()[:4])[0] == b"GGUF"


def test_what_stays_makes_up_for_what_goes(menu, model, text, quick, tmp_path):
    """The mixing matrix is fitted anew: taking its columns out alone is worse."""
    from safetensors.torch import load_file

    chosen = by_hand(menu[1], mlp1="channels(keep=0.3333)", self_attn1="heads(keep=0.25)")
    result = apply(str(model), chosen, data=str(text), out=tmp_path, menu=menu[0], **quick)
    made, plain = load_file(tmp_path / "packed.safetensors"), load_file(model / "model.safetensors")
    down = "model.layers.1.mlp.down_proj.weight"
    gate = made["model.layers.1.mlp.gate_proj.weight"]
    kept = [int((plain["model.layers.1.mlp.gate_proj.weight"] == row).all(1).nonzero()) for row in gate]
    assert made[down].shape == (64, 32) and kept == sorted(kept)
    assert not torch.allclose(made[down], plain[down][:, kept])
    assert result["kl"] > 0 and made["model.layers.1.self_attn.o_proj.weight"].shape == (64, 16)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt2", {"h.0.mlp.*": "channels(keep=0.5, then='int(bits=8, group=0)')", "h.1.attn.*": "drop()"}),
        ("opt", {"layers.0.*": "channels(keep=0.6667)", "layers.1.self_attn.*": "drop()"}),
        ("qwen2", {"layers.0.self_attn.*": "heads(keep=0.5)", "layers.1.mlp.*": "drop()"}),
        ("gemma2", {"layers.0.mlp.*": "drop()", "layers.1.self_attn.*": "drop()"}),
        ("phi3", {"layers.0.mlp.*": "channels(keep=0.3333)", "layers.1.self_attn.*": "drop()"}),
    ],
)
def test_families(tiny, text, quick, tmp_path, name, words):
    """Biases go with their rows, norms with their parts, and every network reads back."""
    folder = str(tiny(name))
    menu = survey(folder, str(text), format="packed", edits="channels,heads,drop", out=tmp_path / "menu", **quick)
    chosen = {unit.name: parse("keep()") for unit in menu.units}
    for end, edit in words.items():
        (row,) = [row for row in chosen if row.endswith(end) and ("self_attn" in row) == ("self_attn" in end)]
        chosen[row] = parse(edit)
    made = Plan(chosen, {}, math.nan, math.nan, math.nan, "", dict(menu.about))
    result = apply(folder, made, data=str(text), out=tmp_path / "out", menu=tmp_path / "menu", **quick)
    assert result["export"]["logit_error"] < 1e-5 and result["spent"]["flops"] < menu.fixed["flops"] + sum(
        cost[np.isfinite(cost)].max() for cost in menu.cost["flops"]
    )


@pytest.mark.parametrize(
    ("name", "row", "form"),
    [
        ("gpt2", "transformer.h.1.attn.*", "packed"),
        ("gpt2", "transformer.h.1.attn.*", "torch-export"),
        ("opt", "model.decoder.layers.1.self_attn.*", "packed"),
        ("phi3", "model.layers.1.self_attn.*", "packed"),
        ("phi3", "model.layers.1.self_attn.*", "torch-export"),
        ("gpt_neox", "gpt_neox.layers.1.attention.*", "packed"),
    ],
)
def test_heads_of_every_family(tiny, text, quick, tmp_path, name, row, form):
    """However queries, keys and values lie: the file's network is the one in memory, and its cache is smaller."""
    folder = str(tiny(name))
    menu = survey(folder, str(text), format=form, edits="heads", out=tmp_path / "menu", **quick)
    u = [unit.name for unit in menu.units].index(row)
    kv = {str(edit): menu.cost["kv"][u, e] for e, edit in enumerate(menu.edits) if np.isfinite(menu.damage[u, e])}
    assert kv["heads(keep=0.5)"] == kv["keep()"] / 2 > 0
    chosen = {unit.name: parse("heads(keep=0.5)" if unit.name == row else "keep()") for unit in menu.units}
    made = Plan(chosen, {}, math.nan, math.nan, math.nan, "", dict(menu.about))
    result = apply(folder, made, data=str(text), out=tmp_path / "out", menu=tmp_path / "menu", **quick)
    assert result["export"]["logit_error"] < 1e-5 and result["kl"] > 0
    assert result["spent"]["kv"] == menu.fixed["kv"] + menu.cost["kv"][:, 0].sum() - kv["keep()"] / 2


def test_heads_in_a_plain_file_are_for_configs_that_can_say_so(tiny, text, quick, tmp_path):
    how = {"format": "safetensors", "edits": "heads", **quick}
    for name in ("gpt2", "opt", "gpt_neox"):
        with pytest.raises(ExportError, match=f"a config of `{name}` takes heads to be as wide"):
            survey(str(tiny(name)), str(text), out=tmp_path / name, **how)
    result = cut(str(tiny("phi3")), str(text), "90% flops", out=tmp_path / "phi3", **how)
    config = json.loads((tmp_path / "phi3" / "config.json").read_text())
    before = json.loads((tiny("phi3") / "config.json").read_text())
    assert config["num_key_value_heads"] < before["num_key_value_heads"] and "secateur_shapes" not in config
    assert "transformers" in result["export"]["verified_in"] and result["export"]["logit_error"] < 1e-3


def test_plain_files_have_no_heads_that_their_config_would_be_refused_for(model, text, quick, tmp_path):
    """Three of four KV heads are six query heads, and a width of 64 is no multiple of six."""
    menu = survey(str(model), str(text), format="safetensors", edits="heads", out=tmp_path, **quick)
    offered = {
        text_ for text_, column in zip(map(repr, menu.edits), menu.damage.T, strict=True) if np.isfinite(column).any()
    }
    assert "heads(keep=0.5)" in offered and "heads(keep=0.75)" not in offered
    menu = survey(str(model), str(text), format="packed", edits="heads", out=tmp_path / "packed", **quick)
    assert "heads(keep=0.75)" in set(map(repr, menu.edits))


@pytest.mark.parametrize(("name", "width"), [("llama", "intermediate_size"), ("gpt2", "n_inner"), ("opt", "ffn_dim")])
def test_the_same_shape_in_every_block_is_a_plain_model(tiny, text, quick, tmp_path, name, width):
    """transformers itself loads it: fewer channels (and heads) in its configuration, nothing of ours beside."""
    more = {"num_attention_heads": 8, "num_key_value_heads": 4} if name == "llama" else {}
    folder = str(tiny(name, **more))
    result = cut(folder, str(text), "85% flops", out=tmp_path, format="safetensors", edits="bits", **quick)
    assert "transformers" in result["export"]["verified_in"] and result["export"]["logit_error"] < 1e-3
    config = json.loads((tmp_path / "config.json").read_text())
    before = json.loads((tiny(name, **more) / "config.json").read_text())
    assert "secateur_shapes" not in config
    assert config[width] < (before[width] or 4 * 64) or config["num_key_value_heads"] < 4
    assert result["spent"]["bytes"] == (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.parametrize(("name", "edits"), [("llama", "bits"), ("mixtral", "bits,experts")])
def test_the_same_shape_in_every_block_may_be_coded_as_well(tiny, text, quick, tmp_path, name, edits):
    """compressed-tensors: a narrower plain model whose linear layers are codes."""
    more = {"num_attention_heads": 8, "num_key_value_heads": 4}
    folder = str(tiny(name, **more))
    budget = "75% flops, 45% bytes" if name == "llama" else "23% bytes"
    result = cut(folder, str(text), budget, out=tmp_path, format="compressed-tensors", edits=edits, **quick)
    config, before = (json.loads((where / "config.json").read_text()) for where in (tmp_path, Path(folder)))
    assert "secateur_shapes" not in config and config["quantization_config"]["quant_method"] == "compressed-tensors"
    narrow = ("intermediate_size", "num_key_value_heads") if name == "llama" else ("num_local_experts",)
    assert any(config[key] < before[key] for key in narrow)
    assert "transformers" in result["export"]["verified_in"] and result["export"]["logit_error"] < 1e-3
    assert result["spent"]["bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert all(result["spent"][one] <= cap for one, cap in result["budget"].items() if one != "asked")
    if name == "llama":  # the layers of a part have each its own
        words = " ".join(result["edits"].values())
        assert "then=" in words or "each(" in words


@pytest.mark.parametrize("format", ["safetensors", "compressed-tensors"])
def test_fewer_blocks_and_narrower_ones_in_one_plain_file(tiny, text, quick, tmp_path, format):
    """A block gone, the others with fewer channels and heads, and bits from row to row: and bits alone on the menu."""
    more = {"num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 3}
    folder, where = str(tiny("llama", **more)), tmp_path / "menu"
    kinds = "bits,channels,heads,drop"
    menu = survey(folder, str(text), format=format, edits=kinds, out=where, **quick)
    bits = survey(folder, str(text), format=format, out=tmp_path / "bits", **quick)
    assert [unit.name for unit in menu.units] == [unit.name for unit in bits.units]
    budgets = ("5 bits/weight", "4 bits/weight", "80% bytes") if format == "compressed-tensors" else ("16 bits/weight",)
    for budget in budgets:  # as it was, but for the norms that are a block's own now, which bits per weight count alike
        (alone,), (joint,) = plan(bits, [budget]), plan(load_menu(where), [budget])
        assert joint.damage <= alone.damage * (1 + 1e-9)

    gone = menu.about["one_shape"]["order"][0]
    inner = ", then='int(bits=4, group=32)'" if format == "compressed-tensors" else ""
    edits = {unit.name: parse("drop()" if unit.block == gone else "keep()") for unit in menu.units}
    for name in (name for name in edits if "layers" in name and f".{gone}." not in name):
        edits[name] = parse("heads(keep=0.5)" if "attn" in name else f"channels(keep=0.6667{inner})")
    made = Plan(edits, {}, math.nan, math.nan, math.nan, "", dict(menu.about))
    result = apply(folder, made, data=str(text), out=tmp_path / "out", menu=where, **quick)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"], config["num_key_value_heads"]) == (2, 64, 2)
    assert "secateur_shapes" not in config and result["spent"]["kv"] == 2 * 2 * 2 * 2 * 8
    assert "transformers" in result["export"]["verified_in"] and result["export"]["logit_error"] < 1e-3
    assert result["spent"]["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size

    edits[f"model.layers.{3 - gone}.mlp.down_proj"] = parse("channels(keep=0.3333)")
    with pytest.raises(PlanError, match="holds one shape for all blocks"):
        apply(folder, made, data=str(text), out=tmp_path / "out", menu=where, **quick)


def test_keep_and_pin_hold_on_both_sides(model, text, quick, tmp_path):
    menu = survey(
        str(model), str(text), format="packed", edits="bits,channels,heads,drop", out=tmp_path,
        keep=("model.layers.0.mlp.down_proj",), pin={"layers.1.mlp.gate_proj": "int(bits=4, group=0)"}, **quick,
    )  # fmt: skip
    at = {unit.name: u for u, unit in enumerate(menu.units)}
    words = [str(edit) for edit in menu.edits]
    can = {name: [words[e] for e in np.flatnonzero(np.isfinite(menu.damage[u]))] for name, u in at.items()}
    assert not any(word.startswith(("channels", "drop")) for word in can["model.layers.0.mlp.*"])
    assert all(word == "keep()" or "; keep()" in word for word in can["model.layers.0.mlp.*"])
    pinned = [word for word in can["model.layers.1.mlp.*"] if word != "drop()"]
    assert pinned and all(word.count("int(bits=4, group=0)") > 0 for word in pinned)


def test_what_cannot_be(model, text, quick, tmp_path, menu):
    with pytest.raises(ExportError, match="holds a network in its own shape"):
        cut(str(model), str(text), "60% flops", out=tmp_path, format="onnx", **quick)
    chosen = by_hand(menu[1], mlp0="heads(keep=0.5)")
    with pytest.raises(PlanError, match="no heads that could go"):
        apply(str(model), chosen, data=str(text), out=tmp_path, menu=menu[0], **quick)
    with pytest.raises(PlanError, match="cannot come after another cut"):
        parse("channels(keep=0.5, then='drop()')")
