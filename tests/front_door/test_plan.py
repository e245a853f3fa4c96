"""`secateur plan` as a process: several budgets from one menu, a frontier, and files that can be applied."""

import json

import numpy as np
import pytest

from secateur.parts.edits import parse
from secateur.parts.menus import load_plan, save_menu
from secateur.types import Matrix, Menu, Unit

BITS = (2, 3, 4, 8)


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    """Twelve units of 4096 weights, each minding a cut more than the one before."""
    units = tuple(
        Unit(f"layers.{at}.proj", "linear", (Matrix(f"layers.{at}.proj.weight", 64, 64, f"layers.{at}.proj"),), at)
        for at in range(12)
    )
    payload = np.array([[64 * 64 * bits / 8 for bits in BITS]] * len(units))
    damage = np.array([[(1 + at) * 4.0**-bits for bits in BITS] for at in range(len(units))])
    folder = tmp_path_factory.mktemp("menus") / "menu"
    edits = tuple(parse(f"int(bits={bits}, group=64)") for bits in BITS)
    cost = {"payload": payload, "bytes": payload + 16}
    fixed = {"payload": 0.0, "bytes": 1000.0}
    save_menu(Menu(units, edits, cost, damage, damage / 10, fixed, 12 * 64 * 64), folder)
    return folder


def test_two_budgets_make_two_files(secateur, menu, tmp_path):
    out = tmp_path / "plan.yaml"
    result = secateur("plan", menu, "-b", "4 bits/weight", "-b", "3 bits/weight", "-o", out, "--json")
    assert result.returncode == 0, result.stderr
    plans = json.loads(result.stdout)["plans"]
    assert [plan["file"] for plan in plans] == [str(tmp_path / "plan-1.yaml"), str(tmp_path / "plan-2.yaml")]
    for plan, cap in zip(plans, (4, 3), strict=True):
        assert plan["spent"]["bits_per_weight"] <= cap
        assert plan["bound"] <= plan["damage"]
        assert len(plan["edits"]) == 12
    assert plans[0]["damage"] < plans[1]["damage"]
    again = load_plan(tmp_path / "plan-2.yaml")
    assert again.spent == plans[1]["spent"]


def test_the_table_is_for_people(secateur, menu, tmp_path):
    result = secateur("plan", menu, "-b", "4 bits/weight", "-o", tmp_path / "plan.yaml", COLUMNS="200")
    assert result.returncode == 0, result.stderr
    assert "4 bits/weight" in result.stdout
    assert "proven floor" in result.stdout
    assert (tmp_path / "plan.yaml").exists()
    assert result.stderr.splitlines()[-1].startswith("again: secateur plan ")


def test_a_budget_below_the_cheapest_plan(secateur, menu, tmp_path):
    result = secateur("plan", menu, "-b", "1 bits/weight", "-o", tmp_path / "plan.yaml")
    assert result.returncode == 2
    assert "2" in result.stderr  # the cheapest possible
    assert "hint: " in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("budget", "message"),
    [("four", "cannot read the budget"), ("4", "says no unit"), ("4 furlongs", "unknown unit"), ("-b", "-b")],
)
def test_a_budget_that_is_none(secateur, menu, budget, message):
    result = secateur("plan", menu, "-b", budget)
    assert result.returncode == 2
    assert message in result.stderr
    assert "hint: " in result.stderr


def test_a_menu_that_is_not_there(secateur, tmp_path):
    result = secateur("plan", tmp_path / "none", "-b", "4 bits/weight")
    assert result.returncode == 2
    assert "there is no menu" in result.stderr
