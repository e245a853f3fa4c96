"""Published damages: shares, recipes and held-out errors by hand, on a model of three tensors."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    published, tables = (importlib.import_module(f"benchmarks.{name}") for name in ("published", "tables"))
    return published, tables


@pytest.fixture
def model(modules):
    published, _ = modules
    recipe = published.Recipe("three/mixed", 10.0, ("low", "high", "low"))
    return published.Published(
        "three",
        ("a", "b", "c"),
        ("ffn", "attn", "ffn"),
        np.array([320.0, 320.0, 640.0]),
        {"low": np.array([0.11, 0.31, 0.01])},
        {"low": 0.8, "high": 0.1},
        {"low": 2.0, "high": 4.0},
        (recipe,),
    )


def test_by_hand(model):
    assert model.reference == "low"
    assert model.shares().tolist() == pytest.approx([0.25, 0.75, 0.0])  # the least is what the run itself shows
    assert model.predicted(("low", "high", "low")) == pytest.approx(0.25 * 0.8 + 0.75 * 0.1)
    assert model.payload(("low", "high", "low")) == (320 * 2 + 320 * 4 + 640 * 2) / 8


def test_a_uniform_recipe_comes_out_as_measured(model):
    for qtype, whole in model.whole.items():
        assert model.predicted((qtype,) * 3) == pytest.approx(whole)


def test_our_plan_keeps_to_the_recipes_bytes_and_spends_them_where_they_save_most(model, modules):
    _, tables = modules
    (recipe,) = model.recipes
    ours = tables.planned(model, recipe, ("low", "high"))
    assert model.payload(ours) <= model.payload(recipe.types)
    assert ours == recipe.types  # of the two small tensors the one with the larger share


def test_what_follows_the_prediction_exactly_is_missed_by_nothing(modules):
    _, tables = modules
    x = np.array([0.1, 0.5, 0.9, 1.3])
    assert tables.off(x, x + 2, tables.shifted) == pytest.approx(0, abs=1e-12)
    assert tables.off(x, 3 * x + 2, tables.scaled) == pytest.approx(0, abs=1e-12)
    # each one unseen in turn: missed by the unseen's distance from the others' mean, 4/3 of that from all
    assert tables.off(x, np.zeros(4), tables.shifted) == pytest.approx(4 / 3 * np.std(x))
