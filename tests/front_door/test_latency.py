"""Seconds: products are timed once each and add up; a budget in ms is planned with and measured on the file."""

from __future__ import annotations

import time

import numpy as np
import pytest

from secateur.cut import cut, latency, plan, survey
from secateur.cut.applying import apply
from secateur.cut.case import silent
from secateur.cut.latency import PLAIN, TURNS, fastest, in_turn, timed
from secateur.cut.opening import open_case
from secateur.cut.trials import BOUNDS, Trial, _told, at_shares
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.rank import Rank
from secateur.parts.menus import load_menu
from secateur.types import BudgetError, Menu, Unit


@pytest.fixture
def patient(tiny, text, quick):
    """A tiny Llama, some text, and options of a calibration that is over soon."""
    return str(tiny("llama")), str(text), quick


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Tiny networks need no seconds of tries."""
    monkeypatch.setattr(latency, "LONGEST", 10)


def test_the_fastest_of_enough_tries():
    waits = iter([0.03, 0.02, 0.001, 0.02, 0.02, 0.02, *[0.02] * 20])
    assert 0.001 <= fastest(lambda: time.sleep(next(waits)), tries=5, long=0.05) < 0.015


def test_two_in_turn():
    asked = []
    waits = iter([0.03, 0.001, 0.02, 0.02, 0.02, 0.02, 0.02])
    one, other = in_turn(lambda: (asked.append("one"), time.sleep(next(waits))), lambda: asked.append("other"), 5, 0.0)
    assert asked == ["one", "other"] * 6 and 0.001 <= one < 0.015 and other < one


EDITS = {"packed": Keep(), "torch-export": Rank(0.5, "int(bits=4, group=32)"), "onnx": Int(4, 32)}


@pytest.mark.parametrize("format", EDITS)
def test_every_product_is_timed_once(patient, format):
    model, text, how = patient
    case = timed(open_case(model, text, format, how["samples"], how["seq_len"], 0, "cpu"))
    clock, edit = case.clock, EDITS[format]
    assert "seconds" in case.resources
    unit = next(unit for unit in case.units if unit.kind == "linear" and case.refuses(unit, edit) is None)
    first, known = clock.seconds(unit, edit), dict(clock.known)
    assert first > 0 and all(value > 0 for value in known.values())
    assert clock.seconds(unit, edit) == first and clock.known == known
    table = next(unit for unit in case.units if unit.kind == "embedding")
    assert clock.seconds(table, Keep()) == 0.0  # looking up is free
    if format != "onnx":  # the whole network in ONNX takes long to trace: benchmarks/latency.py
        assert clock.rest >= 0


def test_a_budget_in_ms(patient, tmp_path):
    model, text, how = patient
    told = cut(model, text, "2000 ms, 5 bits/weight", out=tmp_path / "out", format="packed", **how)
    assert told["spent"]["seconds"] <= 2 and set(told["latency"]) == {"promised", "measured", "uncut", "pace"}
    assert told["latency"]["promised"] <= 2 and min(told["latency"].values()) > 0
    again = apply(model, tmp_path / "out/plan.yaml", data=text, out=tmp_path / "again", **how)
    assert again["latency"]["promised"] == told["latency"]["promised"] and again["latency"]["measured"] > 0
    with pytest.raises(BudgetError, match=r"needs [\d.]+ ms"):
        cut(model, text, "0.0001 ms", out=tmp_path / "shapes", format="safetensors", edits="channels,drop", **how)


def test_savings_are_multiplied_by_what_whole_plans_save():
    unit = Unit("a", "linear", (), 8), Unit("b", "linear", (), 8)
    cost = {"seconds": np.array([[4.0, 2.0, np.inf], [6.0, 5.0, 3.0]])}
    about = {"uncut_seconds": 12.0, "saved": 1.0, "trials": []}
    menu = Menu(unit, (Keep(), Int(8, 0), Int(4, 0)), cost, np.zeros((2, 3)), np.zeros((2, 3)), {"seconds": 2.0}, 16,
                {PLAIN: np.array([4.0, 6.0])}, about)  # fmt: skip
    trials = [Trial("8 s", 0.4, 0.2, 12.0), Trial("7 s", 0.5, 0.25, 11.0), Trial("12 s", 0.01, -0.3, 13.0)]
    made = _told(menu, trials)  # the last of them is noise
    assert made.about["saved"] == pytest.approx(0.5) and made.fixed["seconds"] == 2.0
    np.testing.assert_allclose(made.cost["seconds"], [[4.0, 3.0, np.inf], [6.0, 5.5, 4.5]])
    back = _told(made, [Trial("8 s", 0.4, 0.4, 24.0)])  # factors do not pile up, and the machine is half as fast
    np.testing.assert_allclose(back.cost["seconds"], 2 * cost["seconds"])
    assert back.fixed["seconds"] == 4.0 and back.about["uncut_seconds"] == 24.0
    assert back.notes[PLAIN].tolist() == [8.0, 12.0]
    assert _told(made, [Trial("12 s", 0.01, 0.9, 12.0)]).about["saved"] == pytest.approx(0.5)


@pytest.mark.parametrize("format", ["gguf", "onnx-qdq"])
def test_a_runtime_without_a_clock_is_said(patient, format):
    model, text, how = patient
    with pytest.raises(BudgetError, match=f"{format} files of language models are not timed yet"):
        timed(open_case(model, text, format, how["samples"], how["seq_len"], 0, None))


NET = """
from torch import nn

def net():
    made = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    made.preprocessing = {"shape": (1, 8, 8), "scale": 1.0, "mean": (0.0,), "std": (1.0,)}
    return made
"""


def _examples(place, net):
    """A network in a file of its own and some pictures, as one names them."""
    name, random = f"net_{place.name}", np.random.default_rng(0)
    (place / f"{name}.py").write_text(net)
    images, labels = random.integers(0, 256, (60, 8, 8, 1), np.uint8), random.integers(0, 3, 60)
    np.savez(place / "data.npz", images=images, labels=labels)
    return f"{name}:net", str(place / "data.npz")


def test_a_share_of_seconds_is_of_the_uncut_network_s(tmp_path, monkeypatch):
    wide = _examples(
        tmp_path,
        NET.replace("4,", "16,")
        .replace("256", "1024")
        .replace("nn.Flatten", "nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten"),
    )
    monkeypatch.chdir(tmp_path)
    how = {"format": "safetensors", "edits": "channels", "samples": 40}
    menu = survey(*wide, out=tmp_path / "menu", clock=True, **how)
    uncut, saved, trials = (menu.about[name] for name in ("uncut_seconds", "saved", "trials"))
    assert trials and BOUNDS[0] <= saved <= BOUNDS[1] and all(one["saved"] < 1 for one in trials)
    keep = menu.edits.index(Keep())
    every = menu.fixed["seconds"] + menu.cost["seconds"][:, keep].sum()
    assert every == pytest.approx(uncut)  # whatever savings are multiplied by
    (half,) = plan(menu, ["150% ms"])
    assert half.spent["seconds"] <= 1.5 * uncut and half.about["caps"]["seconds"] == pytest.approx(1.5 * uncut)
    assert (load_menu(tmp_path / "menu").cost["seconds"] == menu.cost["seconds"]).all()
    case = open_case(*wide, "safetensors", 40, None, 0, "cpu", ("channels",))
    assert at_shares(case, menu, tmp_path / "menu", silent) is menu  # nothing is tried twice


def test_a_menu_without_seconds_says_how_to_have_them(patient):
    model, text, how = patient
    with pytest.raises(BudgetError, match="no resource `seconds`") as told:
        plan(survey(model, text, format="safetensors", **how), ["150% ms"])
    assert "--clock" in told.value.hint


def test_image_models_in_onnx_are_timed_in_floats_and_in_whole_numbers(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    net, data = _examples(tmp_path, NET)
    monkeypatch.chdir(tmp_path)
    case = timed(open_case(net, data, "onnx", 40, None, 0, "cpu"))
    told = []
    case.clock.study(
        [(unit, edit) for unit in case.units for edit in (Keep(), Int(8, 0))], lambda *said: told.append(said)
    )
    assert len(case.clock.known) == 5 and told[-1] == ("timing", 9, 9)  # two layers, two ways each, and the whole
    case.clock.study([], lambda *said: told.append(said))
    assert told[-1] == ("timing", 5, 5)
    assert {key: len(seen) for key, seen in case.clock.times.items()} == dict.fromkeys(case.clock.known, TURNS + 2)
    assert all(case.clock.known[key] == sorted(seen)[len(seen) // 2] for key, seen in case.clock.times.items())
    assert min(case.clock.known.values()) > 0 and case.clock.known["whole"] >= case.clock.rest >= 0
    found = cut(net, data, "1 s", out=tmp_path / "out", format="onnx", samples=40, device="cpu")
    assert 0 < found["latency"]["measured"] < 1 and found["spent"]["seconds"] == found["latency"]["promised"]
    with pytest.raises(BudgetError, match=r"needs [\d.]+ ms"):
        cut(net, data, "0.000001 ms", out=tmp_path / "none", format="onnx", samples=40)
