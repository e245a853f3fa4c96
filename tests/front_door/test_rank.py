"""Low rank by the front door: caps on bytes and on FLOPs together, and a file that keeps to both."""

from __future__ import annotations

import pytest

from secateur.cut import plan
from secateur.cut.applying import apply
from secateur.cut.surveying import survey
from secateur.parts.menus import load_menu


def test_a_cap_on_multiplications_is_kept_by_low_ranks(tiny, text, quick, tmp_path):
    budget = "75% flops, 9 bits/weight"
    how, model = {"data": str(text), **quick}, str(tiny("llama"))
    menu = survey(model, format="packed", edits="bits,rank", out=tmp_path / "menu", **how)
    (chosen,) = plan(menu, [budget])
    told = apply(model, chosen, out=tmp_path / "out", menu=tmp_path / "menu", **how)
    assert any(edit.startswith("rank") for edit in told["edits"].values())
    assert told["spent"]["flops"] <= 0.75 * (menu.cost["flops"].max(1).sum() + menu.fixed["flops"])
    assert told["spent"]["bits_per_weight"] <= 9
    assert told["export"]["bytes_on_disk"] == told["spent"]["bytes"]
    assert told["export"]["logit_error"] < 1e-4


@pytest.mark.parametrize("format", ["packed", "safetensors"])
def test_ranks_multiply_less_where_they_are_kept_as_ranks(tiny, text, quick, tmp_path, format):
    menu = survey(str(tiny("llama")), str(text), format=format, out=tmp_path, edits="rank", **quick)
    assert load_menu(tmp_path).edits == menu.edits
    ranks = [at for at, edit in enumerate(menu.edits) if hasattr(edit, "keep")]
    flops = menu.cost["flops"]
    whole = flops[:, next(at for at in range(len(menu.edits)) if at not in ranks)]
    inside = [at for at, unit in enumerate(menu.units) if unit.kind == "linear"]
    for at in ranks:
        share = flops[inside, at] / whole[inside]
        assert (share == 1).all() if format == "safetensors" else (share <= menu.edits[at].keep + 1e-9).all()
        assert (menu.damage[inside, at] > 0).all()
