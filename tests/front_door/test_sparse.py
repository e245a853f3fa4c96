"""Sparsity by the front door: a budget that masks must meet, N:M pinned, chains, and every format that holds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.cut import cut, plan
from secateur.export import packed
from secateur.parts.menus import load_menu
from secateur.types import PlanError


@pytest.fixture(scope="module")
def llama(tiny):
    return tiny("llama")


def test_a_format_that_holds_no_masks_says_so_before_the_long_part(llama, text, tmp_path, quick):
    with pytest.raises(PlanError, match="no unit can be `sparse` in the format `compressed-tensors`") as caught:
        cut(str(llama), str(text), "9 bits/weight", out=tmp_path, edits="sparse", **quick)
    assert "--format packed" in caught.value.hint and not (tmp_path / "menu" / "menu.json").exists()


def test_masks_alone_meet_a_budget_and_the_zeros_are_on_disk(llama, text, tmp_path, quick):
    told = cut(
        str(llama), str(text), "9 bits/weight", out=tmp_path, format="packed", over="linear", edits="sparse", **quick
    )
    assert told["spent"]["bits_per_weight"] <= 9 and told["export"]["bytes_on_disk"] == told["spent"]["bytes"]
    assert told["export"]["logit_error"] < 1e-5 and told["damage_predicted"] > 0
    inside = {row: edit for row, edit in told["edits"].items() if ".layers." in row}
    assert any(edit.startswith("sparse(") for edit in inside.values())
    assert all(edit.startswith("sparse(") or edit == "keep()" for edit in told["edits"].values())
    zeros, weights = 0, 0
    for name, values in packed.load(tmp_path).items():
        if "_proj" in name:
            zeros, weights = zeros + int((values == 0).sum()), weights + values.numel()
    assert 0.4 < zeros / weights < 0.6
    (dearer,) = plan(tmp_path / "menu", ["12 bits/weight"])
    assert dearer.damage < told["damage_predicted"]
    menu = load_menu(tmp_path / "menu")
    assert menu.about["correction"]["sums"], "masks leave probes"
    inside = np.array([unit.block is not None for unit in menu.units])
    assert np.isfinite(menu.notes["outliers"][inside]).all() and (menu.notes["gradients"][inside] > 0).all()
    assert menu.notes["magnitudes"].shape == (len(menu.units), 101)
    for name in ("owl", "ecoflap", "global-mp", "rd-prune"):
        (other,) = plan(menu, ["9 bits/weight"], name)
        assert other.spent["bits_per_weight"] <= 9 and other.damage >= told["damage_predicted"] * (1 - 1e-6)


@pytest.mark.parametrize(
    ("format", "edit"),
    [
        ("safetensors", "sparse(n=2, m=4)"),
        ("packed", "sparse(keep=0.5, then='int(bits=4, group=32)')"),
        ("torch-export", "sparse(n=2, m=4, then='int(bits=8, group=32)')"),
    ],
)
def test_one_edit_everywhere_in_formats_that_hold_it(llama, text, tmp_path, quick, format, edit):
    told = cut(
        str(llama), str(text), "100% bytes", out=tmp_path, format=format, over="linear", pin={"layers.*": edit}, **quick
    )
    assert told["export"]["logit_error"] < 1e-4
    assert set(told["edits"].values()) == {edit, "keep()"}
    if format == "safetensors":
        from safetensors.torch import load_file

        held = load_file(tmp_path / "model.safetensors")
        some = next(values for name, values in held.items() if "q_proj" in name)
        assert ((some.view(len(some), -1, 4) != 0).sum(-1) <= 2).all()
        assert torch.count_nonzero(some) > 0.45 * some.numel()


def test_bits_and_masks_compete_on_one_menu(llama, text, tmp_path, quick):
    told = cut(str(llama), str(text), "3 bits/weight", out=tmp_path, format="packed", edits="bits,sparse", **quick)
    assert told["spent"]["bits_per_weight"] <= 3 and told["damage_measured"] is not None
