"""The claims' harness: verdicts by hand, and rows that replace themselves."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "harness.py"


@pytest.fixture
def harness():
    spec = importlib.util.spec_from_file_location("benchmarks_harness", SOURCE)
    module = importlib.util.module_from_spec(spec)
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
