"""Fewer experts: priced, cut, written, and read back by the real readers as the network that was measured."""

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
from secateur.parts.reading import network
from secateur.types import ExportError, ModelError, Plan, PlanError

FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe")


@pytest.fixture(scope="module", params=FAMILIES)
def surveyed(request, tiny, text, quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = str(tiny(request.param, **({"num_experts": 6} if request.param == "qwen3_moe" else {})))
    return (
        request.param,
        model,
        folder,
        survey(model, str(text), format="packed", edits="bits,experts", out=folder, **quick),
    )


def by_hand(menu, words: str, format: str = "packed") -> Plan:
    """The last layer of experts cut, all else as it is."""
    chosen = {unit.name: parse("keep()") for unit in menu.units}
    chosen[[name for name in chosen if "experts" in name][-1]] = parse(words)
    return Plan(chosen, {}, math.nan, math.nan, math.nan, "", {**menu.about, "format": format})


def test_the_menu_removes_bytes_and_no_flops_but_the_routers(surveyed):
    _, _, _, menu = surveyed
    row = [unit.name for unit in menu.units if "experts" in unit.name][-1]
    at = [unit.name for unit in menu.units].index(row)
    words = [str(edit) for edit in menu.edits]
    can = [e for e in np.flatnonzero(np.isfinite(menu.damage[at])) if "then" not in words[e] and "each" not in words[e]]
    offered = {words[e]: e for e in can}
    half, merged, keep = (offered[w] for w in ("experts(keep=0.5)", "experts(keep=0.5, merge=True)", "keep()"))
    for e in (half, merged):
        assert menu.cost["bytes"][at, e] < 0.51 * menu.cost["bytes"][at, keep]
        assert 0 < menu.cost["flops"][at, keep] - menu.cost["flops"][at, e] < 0.05 * menu.cost["flops"][at, keep]
        assert menu.damage[at, e] > 0
    others = [u for u, unit in enumerate(menu.units) if "experts" not in unit.name]
    assert not any(words[e].startswith("experts") for u in others for e in np.flatnonzero(np.isfinite(menu.damage[u])))


@pytest.mark.parametrize("merge", [False, True])
def test_one_layer_alone_is_cut_where_layers_may_differ(surveyed, text, quick, tmp_path, merge):
    name, model, folder, menu = surveyed
    words = f"experts(keep=0.5, merge={merge}, then='int(bits=4, group=0)')" if merge else "experts(keep=0.5)"
    # one file of a graph is enough: tracing takes half a minute
    format = "torch-export" if merge and name == "qwen2_moe" else "packed"
    result = apply(model, by_hand(menu, words, format), data=str(text), out=tmp_path, menu=folder, **quick)
    assert result["export"]["logit_error"] < 1e-5 and result["kl"] > 0
    assert result["spent"]["bytes"] == result["export"]["bytes_priced"] < 0.95 * menu_bytes(menu)
    if format == "packed":
        told = json.loads((tmp_path / "config.json").read_text())["secateur_shapes"]["shapes"]
        assert any(name.endswith("gate.weight") for name in told) and len(told) == 3


def menu_bytes(menu) -> float:
    keep = [str(edit) for edit in menu.edits].index("keep()")
    return menu.fixed["bytes"] + menu.cost["bytes"][:, keep].sum()


def test_as_few_in_every_layer_is_a_plain_model(surveyed, text, quick, tmp_path):
    name, model, _, _ = surveyed
    budget = {"mixtral": "70% bytes", "qwen2_moe": "92% bytes", "qwen3_moe": "75% bytes"}[name]
    result = cut(model, str(text), budget, format="safetensors", edits="experts", out=tmp_path, **quick)
    config, before = (json.loads((f / "config.json").read_text()) for f in (tmp_path, Path(model)))
    (key,) = {"num_experts", "num_local_experts"} & set(config)
    n = config[key]
    assert 2 <= n < before[key] and config["num_experts_per_tok"] == 2 and "secateur_shapes" not in config
    assert "transformers" in result["export"]["verified_in"] and result["export"]["logit_error"] < 1e-5
    found, said = load(tmp_path)
    assert not any(said[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    stacks = [p for path, p in found.named_parameters() if path.endswith("experts.down_proj")]
    assert stacks and all(len(stack) == n for stack in stacks)
    single = {t for t in open_tensors(tmp_path) if f".experts.{n - 1}." in t}
    assert single and not any(f".experts.{n}." in t for t in open_tensors(tmp_path))


def test_the_flops_quoted_are_those_that_run(surveyed, text, quick, tmp_path):
    from torch.utils.flop_counter import FlopCounterMode

    _, model, folder, menu = surveyed
    result = apply(model, by_hand(menu, "experts(keep=0.5)"), data=str(text), out=tmp_path, menu=folder, **quick)
    smaller = network(tmp_path)
    smaller.config._experts_implementation = "eager"  # type: ignore[union-attr]  # one by one, so that they are counted
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        smaller(torch.arange(16)[None])
    ops = counter.get_flop_counts()["Global"]
    assert ops[torch.ops.aten.mm] + ops.get(torch.ops.aten.addmm, 0) == 16 * result["spent"]["flops"]


def test_what_cannot_be(surveyed, tiny, text, quick, tmp_path):
    name, model, folder, menu = surveyed
    n = 6 if name == "qwen3_moe" else 4
    with pytest.raises(PlanError, match=f"it would keep 1 of {n} experts, and every token is sent to 2"):
        apply(model, by_hand(menu, f"experts(keep={1 / n})"), data=str(text), out=tmp_path, menu=folder, **quick)
    with pytest.raises(PlanError, match="can have fewer, but not none"):
        apply(model, by_hand(menu, "drop()"), data=str(text), out=tmp_path, menu=folder, **quick)
    with pytest.raises(PlanError, match="cannot come after another cut"):
        parse("experts(keep=0.5, then='experts(keep=0.5)')")
    if name == "mixtral":
        with pytest.raises(ExportError, match="holds a network in its own shape"):
            survey(model, str(text), format="onnx", edits="experts", out=tmp_path, **quick)
        with pytest.raises(ModelError, match="`llama` has no layers of experts"):
            survey(str(tiny("llama")), str(text), format="packed", edits="experts", out=tmp_path, **quick)
