"""Seconds: products are timed once each and add up; a budget in ms is planned with and measured on the file."""

from __future__ import annotations

import time

import numpy as np
import pytest

from secateur.cut import cut
from secateur.cut.applying import apply
from secateur.cut.latency import TURNS, fastest, timed
from secateur.cut.opening import open_case
from secateur.cut.price import check
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.rank import Rank
from secateur.types import Budget, BudgetError


@pytest.fixture
def patient(tiny, text, quick):
    """A tiny Llama, some text, and options of a calibration that is over soon."""
    return str(tiny("llama")), str(text), quick


def test_the_fastest_of_enough_tries():
    waits = iter([0.03, 0.02, 0.001, 0.02, 0.02, 0.02, *[0.02] * 20])
    assert 0.001 <= fastest(lambda: time.sleep(next(waits)), tries=5, long=0.05) < 0.015


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
    assert told["spent"]["seconds"] <= 2 and set(told["latency"]) == {"promised", "again", "measured"}
    assert told["latency"]["promised"] <= 2 and told["latency"]["again"] > 0 and told["latency"]["measured"] > 0
    again = apply(model, tmp_path / "out/plan.yaml", data=text, out=tmp_path / "again", **how)
    assert again["latency"]["promised"] == told["latency"]["promised"] and again["latency"]["measured"] > 0
    with pytest.raises(BudgetError, match=r"needs [\d.]+ ms"):
        cut(model, text, "0.0001 ms", out=tmp_path / "shapes", format="safetensors", edits="channels,drop", **how)


def test_a_share_of_seconds_is_of_nothing():
    with pytest.raises(BudgetError, match="a share of the seconds"):
        check(Budget.parse("50% ms"))


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


def test_image_models_in_onnx_are_timed_in_floats_and_in_whole_numbers(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    (tmp_path / "net_with_a_clock.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (60, 8, 8, 1), np.uint8), random.integers(0, 3, 60)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    net, data = "net_with_a_clock:net", str(tmp_path / "data.npz")
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
