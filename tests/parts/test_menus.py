"""Menus and plans as files: back as they were, corrected by hand, and every way in which they can be wrong."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest

from secateur.parts import allocate, menus
from secateur.parts.edits import parse
from secateur.types import Budget, BudgetError, Matrix, Menu, PlanError, SecateurError, Unit

NAMES = ("model.layers.0.self_attn.qkv", "model.layers.0.mlp.experts", "lm_head")
EDITS = tuple(map(parse, ["int(bits=2, group=64)", "int(bits=3, group=64)", "int(bits=4, group=64)", "keep()"]))


@pytest.fixture
def menu():
    experts = tuple(
        Matrix("model.experts.gate_up_proj", 8, 64, "model.experts", index=i, transposed=True) for i in (0, 1)
    )
    units = (
        Unit(NAMES[0], "linear", (Matrix("q.weight", 16, 64, "attn"), Matrix("k.weight", 16, 64, "attn")), block=0),
        Unit(NAMES[1], "experts", experts, block=0),
        Unit(NAMES[2], "head", (Matrix("lm_head.weight", 32, 64, "norm"),)),
    )
    payload = np.array([[576.0, 832, 1088, 4096], [288, 416, 544, 2048], [np.inf, 832, 1088, 4096]])
    damage = np.array([[0.3, 0.08, 0.02, 0], [0.5, 0.1, 0.03, 0], [np.inf, 0.01, 0.002, 0]])
    return Menu(
        units,
        EDITS,
        {"payload": payload, "bytes": payload + 8},
        damage,
        0.1 * np.where(np.isfinite(damage), damage, 0),
        {"payload": 100.0, "bytes": 612.0},
        5120,
        notes={"lim": np.array([-0.5, -0.5, np.nan])},
        about={"fingerprint": "f00d", "model": "tiny", "format": "packed", "over": "all", "samples": np.int64(8)},
    )


@pytest.fixture
def plan(menu):
    return allocate.find()(menu, Budget.parse("4.5 bits/weight"))


def rewrite(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_menu_comes_back_as_it_was(menu, tmp_path):
    menus.save_menu(menu, tmp_path / "menu")
    back = menus.load_menu(tmp_path / "menu")
    assert (back.units, back.edits, back.weights, back.fixed) == (menu.units, menu.edits, menu.weights, menu.fixed)
    assert back.about == {**menu.about, "samples": 8}
    for name in menu.cost:
        np.testing.assert_array_equal(back.cost[name], menu.cost[name])
    for name in ("damage", "error"):
        np.testing.assert_array_equal(getattr(back, name), getattr(menu, name))
    np.testing.assert_array_equal(back.notes["lim"], menu.notes["lim"])


def test_the_head_of_a_menu_can_be_read(menu, tmp_path):
    menus.save_menu(menu, tmp_path)
    head = json.loads((tmp_path / "menu.json").read_text())
    assert head["edits"][1] == "int(bits=3, group=64)"
    assert head["units"][1]["matrices"][1] == {
        "tensor": "model.experts.gate_up_proj",
        "rows": 8,
        "cols": 64,
        "tap": "model.experts",
        "index": 1,
        "transposed": True,
    }
    assert head["about"]["model"] == "tiny"
    assert sum("matrices" in line for line in (tmp_path / "menu.json").read_text().splitlines()) == 3, "one line a unit"


def test_a_menu_is_replaced_and_its_neighbours_are_left_alone(menu, tmp_path):
    (tmp_path / "block-0.safetensors").write_bytes(b"of an unfinished survey")
    menus.save_menu(menu, tmp_path)
    menus.save_menu(replace(menu, damage=2 * menu.damage), tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert len(names) == 3 and names[1:] == ["block-0.safetensors", "menu.json"]
    np.testing.assert_array_equal(menus.load_menu(tmp_path).damage, 2 * menu.damage)


def test_a_write_that_fails_leaves_the_old_menu(menu, tmp_path, monkeypatch):
    menus.save_menu(menu, tmp_path)
    real = os.replace

    def full(source, target):
        if str(target).endswith("menu.json"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SecateurError, match="no space left") as caught:
        menus.save_menu(replace(menu, damage=2 * menu.damage), tmp_path)
    assert "hint: nothing was changed" in str(caught.value)
    np.testing.assert_array_equal(menus.load_menu(tmp_path).damage, menu.damage)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "menu.json").unlink(), "there is no menu"),
        (lambda d: (d / "menu.json").write_text("{"), "cannot be read"),
        (lambda d: (d / "menu.json").write_text("[]"), "cannot be read"),
        (lambda d: (d / "menu.json").write_text('{"secateur_menu": 99}'), "version 99"),
        (lambda d: rewrite(d / "menu.json", '"weights"', '"heights"'), "'weights' is missing"),
        (lambda d: rewrite(d / "menu.json", "int(bits=3", "imt(bits=3"), "no edit `imt`"),
        (lambda d: next(d.glob("*.npz")).unlink(), "no such file"),
        (lambda d: next(d.glob("*.npz")).write_bytes(b"PK"), "were changed"),
    ],
)
def test_a_menu_that_is_spoilt(menu, tmp_path, spoil, words):
    menus.save_menu(menu, tmp_path)
    spoil(tmp_path)
    with pytest.raises(PlanError, match=words) as caught:
        menus.load_menu(tmp_path)
    assert "hint: " in str(caught.value)


def test_a_plan_comes_back_as_it_was(menu, plan, tmp_path):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    assert menus.load_plan(file) == plan
    assert menus.load_plan(file, menu) == plan
    assert menus.load_plan(file, fingerprint="f00d") == plan


def test_a_plan_is_one_line_per_unit(plan, tmp_path):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    lines = file.read_text().splitlines()
    at = lines.index("edits:")
    assert lines[at + 1 :] == [f"  {unit}: {edit!r}" for unit, edit in plan.edits.items()]
    assert "budget: 4.5 bits/weight" in lines and f"  bytes: {plan.spent['bytes']}" in lines


def test_a_plan_corrected_by_hand_is_priced_anew(menu, plan, tmp_path):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    assert plan.edits[NAMES[0]] == EDITS[2]
    rewrite(file, f"{NAMES[0]}: int(bits=4, group=64)", f"{NAMES[0]}:   int(3,group=64)")
    back = menus.load_plan(file, menu)
    assert back.edits[NAMES[0]] == EDITS[1]
    assert back.spent["bytes"] == plan.spent["bytes"] - 256
    assert back.damage == pytest.approx(plan.damage + 0.06)
    assert back.bound == pytest.approx(plan.bound, rel=0.3) and back.bound <= back.damage
    assert back.about["allocate"] == "by hand"


def test_without_a_menu_a_corrected_plan_has_no_price(plan, tmp_path):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    rewrite(file, f"{NAMES[0]}: int(bits=4, group=64)", f"{NAMES[0]}: keep()")
    back = menus.load_plan(file)
    assert back.edits[NAMES[0]] == parse("keep()")
    assert back.spent == {} and math.isnan(back.damage) and math.isnan(back.error) and math.isnan(back.bound)
    assert back.about["allocate"] == "by hand"


def test_spaces_are_no_correction(menu, plan, tmp_path):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    rewrite(file, "bits=4, ", "bits=4,   ")
    assert menus.load_plan(file) == plan


def test_a_corrected_plan_must_keep_to_its_budget(menu, plan, tmp_path):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    rewrite(file, f"{NAMES[2]}: {plan.edits[NAMES[2]]!r}", f"{NAMES[2]}: keep()")
    with pytest.raises(BudgetError, match=r"more than its budget of 4\.5 bits/weight"):
        menus.load_plan(file, menu)
    rewrite(file, "budget: 4.5 bits/weight", "budget: 12 bits/weight")
    assert menus.load_plan(file, menu).edits[NAMES[2]] == parse("keep()")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lm_head: ", "lm_heat: ", "names `lm_heat`, which is not on the menu\nhint: did you mean `lm_head`?"),
        (
            "lm_head: int(bits=4, group=64)\n",
            "lm_head: int(bits=4, group=63)\n",
            "did you mean `int(bits=4, group=64)`",
        ),
        ("lm_head: int(bits=4, group=64)\n", "lm_head: int(bits=2, group=64)\n", "`lm_head` cannot have `int(bits=2"),
        ("  lm_head: int(bits=4, group=64)\n", "", "says nothing of `lm_head`\nhint: every unit needs a line"),
        ("lm_head: int(bits=4", "lm_head: imt(bits=4", "there is no edit `imt`, for `lm_head`"),
        ("lm_head: int(bits=4, group=64)\n", "lm_head: int(bits=12)\n", "int has 2 to 8 bits, not 12, for `lm_head`"),
        ("fingerprint: f00d", "fingerprint: beef", "is of another model (`tiny`): its fingerprint is beef"),
        ("  lm_head: ", f"  {NAMES[0]}: keep()\n  lm_head: ", f"`{NAMES[0]}` stands twice"),
        ("edits:\n", "edit:\n", "has no `edits:`\nhint: a plan is what"),
        ("edits:\n", "edits: [1]\nold:\n", "has no `edits:`"),
        ("budget: 4.5 bits/weight", "budget: [4.5", "in line"),
        ("budget: 4.5 bits/weight", "budget: 4.5 bytes/weight", "unknown unit `bytes/weight`"),
        ("budget: 4.5 bits/weight", "budget:", "the budget is empty"),
        ("about:", "about: 3\nfor:", "`about:` in"),
        ("lm_head: int(bits=4, group=64)\n", "lm_head: !!python/object/apply:os.system [ls]\n", "cannot read"),
    ],
)
def test_a_plan_that_is_wrong(menu, plan, tmp_path, old, new, words):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    rewrite(file, old, new)
    with pytest.raises(SecateurError) as caught:
        menus.load_plan(file, menu)
    assert words in str(caught.value)
    assert "hint: " in str(caught.value)


def test_a_plan_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(PlanError, match="there is no plan"):
        menus.load_plan(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="cannot read"):
        menus.load_plan(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("")
    with pytest.raises(PlanError, match="has no `edits:`"):
        menus.load_plan(tmp_path / "plan.yaml")


def test_a_damaged_head_needs_the_menu(menu, plan, tmp_path):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    rewrite(file, "damage: ", "damages: ")
    with pytest.raises(PlanError, match="'damage' is missing"):
        menus.load_plan(file)
    assert replace(menus.load_plan(file, menu), bound=plan.bound) == plan


def test_of_another_model(plan, tmp_path):
    file = tmp_path / "plan.yaml"
    menus.save_plan(plan, file)
    with pytest.raises(
        PlanError, match=r"is of another model \(`tiny`\): its fingerprint is f00d, this model's is beef"
    ):
        menus.load_plan(file, fingerprint="beef")


def test_thousands_of_units(tmp_path):
    units = tuple(Unit(f"layers.{i}.w", "linear", (Matrix(f"layers.{i}.w", 8, 8, "x"),), block=i) for i in range(3000))
    cost, damage = np.tile([16.0, 24, 32, 128], (3000, 1)), np.tile([0.3, 0.1, 0.02, 0], (3000, 1))
    menu = Menu(units, EDITS, {"payload": cost, "bytes": cost}, damage, damage, {}, 192000)
    menus.save_menu(menu, tmp_path / "menu")
    plan = allocate.find()(menus.load_menu(tmp_path / "menu"), Budget.parse("3.3 bits/weight"))
    menus.save_plan(plan, tmp_path / "plan.yaml")
    assert menus.load_plan(tmp_path / "plan.yaml", menu) == plan
