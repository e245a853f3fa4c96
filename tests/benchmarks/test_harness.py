"""The claims' harness: verdicts by hand, and rows that replace themselves."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "harness.py"


@pytest.fixture
def harness(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmarks_harness", SOURCE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(1.0, 2.0), (2.0, 4.0), (3.0, 6.5)], "holds"),
        ([(2.0, 1.0), (4.0, 2.0), (6.5, 3.0)], "does not hold"),
        ([(1.0, 2.0), (2.0, 1.0), (1.0, 1.0)], "tie"),
    ],
)
def test_the_verdict_follows_the_interval(harness, pairs, verdict):
    assert harness.judge(pairs)["verdict"] == verdict


def test_a_ratio_is_a_geometric_mean(harness):
    out = harness.judge([(1.0, 2.0), (1.0, 8.0)])
    assert out["effect"] == pytest.approx(0.25)
    assert out["interval"][0] <= 0.25 <= out["interval"][1]


def test_higher_can_be_better(harness):
    out = harness.judge([(3.0, 1.0), (4.0, 1.0)], measure="difference", better="higher")
    assert out["verdict"] == "holds" and out["effect"] == pytest.approx(2.5)


def test_a_ratio_of_something_negative_is_refused(harness):
    with pytest.raises(ValueError, match="difference"):
        harness.judge([(-1.0, 1.0)])


def test_a_claim_prints_one_object_and_replaces_its_own_row(harness, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "CLAIMS", tmp_path / "claims.csv")
    monkeypatch.setattr(harness, "CARDS", tmp_path / "cards")
    for factor in (0.5, 0.25):
        harness.claim("pruner", "halves it", lambda seed, factor=factor: (factor * (seed + 1), seed + 1.0), seeds=3)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [p["effect"] for p in printed] == pytest.approx([0.5, 0.25])
    assert printed[0]["verdict"] == "holds" and printed[0]["seeds"] == 3
    harness.claim("another", "does nothing", lambda seed: (1.0, 1.0), seeds=2)
    with (tmp_path / "claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["slug"], row["effect"], row["verdict"]) for row in rows] == [
        ("another", "1", "tie"),
        ("pruner", "0.25", "holds"),
    ]
    assert {"date", "commit", "machine", "seconds"} <= set(rows[0])
    assert list(tmp_path.iterdir()) == [tmp_path / "claims.csv"]


@pytest.fixture
def bench(harness, tmp_path, monkeypatch):
    """The harness with a CSV and a card of its own."""
    monkeypatch.setattr(harness, "CLAIMS", tmp_path / "claims.csv")
    monkeypatch.setattr(harness, "CARDS", tmp_path / "cards")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "pruner.md").write_text("# pruner\n\n**What differs.** Nothing.\n")
    return harness


def test_a_claim_writes_its_table_into_the_card(bench, tmp_path):
    bench.claim("pruner", "halves it", lambda seed: (0.5, 1.0), seeds=2)
    card = (tmp_path / "cards" / "pruner.md").read_text()
    assert "| halves it | 0.500 [0.500, 0.500] | holds | 2 |" in card
    assert card.startswith("# pruner\n") and card.endswith("**What differs.** Nothing.\n")
    assert not bench.render("pruner"), "nothing has changed since"
    assert not bench.render("nobody")


@pytest.mark.parametrize("seeds", [0, []])
def test_a_claim_without_a_seed_is_refused(bench, seeds):
    with pytest.raises(SystemExit, match="the claim `halves it` of pruner has no seed"):
        bench.claim("pruner", "halves it", lambda seed: (0.5, 1.0), seeds=seeds)


def test_claims_stand_in_the_order_they_are_asked_and_old_questions_go(bench, tmp_path):
    ask = {"z": (1.0, 2.0), "a": (1.0, 1.0), "m": (3.0, 1.0)}
    answers = [bench.claim("pruner", text, lambda seed, pair=pair: pair, seeds=2) for text, pair in ask.items()]
    bench.claim("artist", "draws", lambda seed: (1.0, 2.0), seeds=2)

    def rows():
        with (tmp_path / "claims.csv").open() as file:
            return [(row["slug"], row["claim"]) for row in csv.DictReader(file)]

    assert rows() == [("artist", "draws"), ("pruner", "z"), ("pruner", "a"), ("pruner", "m")]
    bench.claim("pruner", "a", lambda seed: (1.0, 2.0), seeds=2)
    assert rows() == [("artist", "draws"), ("pruner", "z"), ("pruner", "a"), ("pruner", "m")], "it keeps its place"
    bench.keep([answers[2], answers[0]], whole=True)
    assert rows() == [("artist", "draws"), ("pruner", "m"), ("pruner", "z")]


def test_only_what_is_asked_for_is_run(bench, tmp_path, monkeypatch):
    asked = bench.Asked(("a",), seeds=1, keep=False)
    monkeypatch.setenv("ASKED", asked.spoken())
    assert bench.Asked.heard() == asked
    assert bench.claim("pruner", "z", lambda seed: 1 / 0, seeds=2) == {}
    assert bench.claim("pruner", "a", lambda seed: (1.0, 2.0), seeds=5)["seeds"] == 1
    assert not (tmp_path / "claims.csv").exists()
