"""Bench: what a contestant is, everyone at the same bytes, others beside, and a run that goes on."""

import json
import re
import runpy
from pathlib import Path

import pytest

from secateur.bench import Contestant, bench, contestant, picture, winners
from secateur.pictures import rivals
from secateur.types import SecateurError

MODELS = runpy.run_path(str(Path(__file__).parent / "front_door" / "conftest.py"))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("two-sided", ("lagrange", "two-sided", "kronecker")),
        ("uniform+rtn", ("uniform", "nearest", "kronecker")),
        ("gptq", ("lagrange", "one-sided", "kronecker")),
        ("layerwise_quant + nearest", ("layerwise-quant", "nearest", "kronecker")),
        ("kronecker+baq", ("baq", "two-sided", "kronecker")),
    ],
)
def test_a_contestant_is_made_of_parts(words, meant):
    assert contestant(words) == Contestant(words, *meant)


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("two-sidde", "no allocator, rounding, damage or method `two-sidde`", "did you mean `two-sided`?"),
        ("rtn+gptq", "`rtn+gptq` says twice how to round", "at most one"),
        (" + ", "a contestant has no name", "lagrange"),
    ],
)
def test_what_is_no_contestant(words, said, hint):
    with pytest.raises(SecateurError, match=re.escape(said)) as caught:
        contestant(words)
    assert hint in caught.value.hint


def row(name: str, budget: str, size: int, kl: float | None) -> dict:
    known = {"contestant": name, "budget": budget, "bytes": size, "kl": kl}
    return known | {"kl_interval": None if kl is None else [kl - 0.02, kl + 0.02]}


ROWS = [row("a <b>", "4 bits", 400, 0.03), row("b", "4 bits", 390, 0.1), row("b", "2 bits", 200, 1.0)]


def test_who_wins_where():
    assert winners([*ROWS, row("c", "2 bits", 0, None)]) == {"4 bits": "a <b>", "2 bits": "b"}


def test_a_picture_has_a_line_for_everyone_and_stands_alone():
    drawn = picture(ROWS)
    assert drawn.count("<polyline") == 2 and drawn.count("<title>") == 3 and "a &lt;b&gt;" in drawn
    assert "xmlns" in drawn and "var(" not in drawn
    assert "nan" not in rivals(ROWS[:1]), "one point is a picture, too"
    assert picture([row("c", "2 bits", 0, None)]) == ""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    model = MODELS["save"]("llama", "float16", {}, folder / "model")
    (folder / "text.txt").write_text("The old tree grows slowly and bends under the young leaf. " * 300)
    (folder / "heldout.txt").write_text("A green stem keeps the quick root over red or young if cuts. " * 40)
    return folder, str(model)


HOW = {"samples": 12, "seq_len": 32}


def test_everyone_keeps_to_the_same_bytes(place):
    folder, model = place
    words, budgets = ["two-sided", "uniform+rtn"], ["70% bytes", "9 bits/weight"]
    found = bench(model, str(folder / "text.txt"), budgets, words, out=folder / "out", **HOW)
    rows = found["rows"]
    assert [(one["budget"], one["contestant"]) for one in rows] == [(b, w) for b in budgets for w in words]
    most = json.loads((folder / "out" / "two-sided-1" / "secateur.json").read_text())["budget"]["bytes"]
    done = [one for one in rows if one["kl"] is not None]
    assert len(done) >= 3 and all(one["bytes"] <= most for one in done if one["budget"] == budgets[0])
    assert all(one["bits_per_weight"] <= 9 for one in done if one["budget"] == budgets[1])
    assert all(low <= one["kl"] <= high for one in done for low, high in [one["kl_interval"]])
    assert all(one["note"] for one in rows if one["kl"] is None)
    assert json.loads((folder / "out" / "bench.json").read_text())["rows"] == rows
    assert not list((folder / "out").glob("*/*.safetensors")), "gigabytes do not stay"
    before = {file: file.stat().st_mtime_ns for file in (folder / "out").glob("*/bench-row.json")}
    assert bench(model, str(folder / "text.txt"), budgets, words, out=folder / "out", **HOW)["rows"] == rows
    assert {file: file.stat().st_mtime_ns for file in before} == before, "finished rows are taken up"


def test_files_of_others_stand_beside(place, secateur):
    folder, model = place
    texts = ["--data", folder / "text.txt", "--text", folder / "heldout.txt", "--samples", 12, "--seq-len", 32]
    asked = ["--budgets", "9 bits/weight", "--methods", "gptq", "--beside", model, "--keep-files", "--json"]
    done = secateur("bench", model, *texts, *asked, "-o", folder / "beside")
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout)["rows"]
    assert (ours["contestant"], theirs["contestant"]) == ("gptq", model)
    assert theirs["kl"] == 0 and theirs["bytes"] > ours["bytes"] and ours["kl"] > 0
    assert list((folder / "beside" / "gptq-1").glob("*.safetensors"))


def test_others_need_a_text_of_their_own(place):
    folder, model = place
    with pytest.raises(SecateurError, match="only be measured on a text of its own"):
        bench(model, str(folder / "text.txt"), ["4 bits/weight"], ["gptq"], out=folder / "no", beside=[model])
    assert not (folder / "no").exists()
