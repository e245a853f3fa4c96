"""Seconds: products are timed once each and add up; a budget in ms is planned with and measured on the file."""

from __future__ import annotations

import runpy
import time
from pathlib import Path

import pytest

from secateur.case import open_case
from secateur.cut import cut
from secateur.latency import Latency, fastest, timed
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.rank import Rank
from secateur.price import check
from secateur.types import Budget, BudgetError

FIXTURES = runpy.run_path(str(Path(__file__).parent / "front_door" / "conftest.py"))


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A tiny Llama, some text, and options of a calibration that is over soon."""
    folder = tmp_path_factory.mktemp("latency")
    text = folder / "text.txt"
    text.write_text("The old tree bends over the young root.\n" * 400)
    return str(FIXTURES["save"]("llama", "float16", {}, folder / "llama")), str(text), {"samples": 8, "seq_len": 32}


def test_the_fastest_of_enough_tries():
    waits = iter([0.03, 0.02, 0.001, 0.02, 0.02, 0.02, *[0.02] * 20])
    assert 0.001 <= fastest(lambda: time.sleep(next(waits)), tries=5, long=0.05) < 0.015


EDITS = {"packed": Keep(), "torch-export": Rank(0.5, "int(bits=4, group=32)"), "onnx": Int(4, 32)}


@pytest.mark.parametrize("format", EDITS)
def test_every_product_is_timed_once(patient, format):
    model, text, how = patient
    case = timed(open_case(model, text, format, how["samples"], how["seq_len"], 0, None))
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
    assert told["spent"]["seconds"] <= 2 and set(told["latency"]) == {"promised", "measured"}
    assert told["latency"]["promised"] <= 2 and told["latency"]["measured"] > 0
    with pytest.raises(BudgetError, match=r"needs [\d.]+ ms"):
        cut(model, text, "0.0001 ms", out=tmp_path / "shapes", format="safetensors", edits="channels,drop", **how)


def test_what_cannot_be_timed_is_said(patient):
    with pytest.raises(BudgetError, match="a share of the seconds"):
        check(Budget.parse("50% ms"))

    class Case:
        format = type("F", (), {"name": "onnx"})
        stream = object.__new__(__import__("secateur.model.whole", fromlist=["Whole"]).Whole)

    with pytest.raises(BudgetError, match="onnx files of image models"):
        Latency(Case())
