"""All claims at once, and the day's turn; the cards' tables are those of the file."""

import importlib.util
import sys
from pathlib import Path

import pytest

from secateur.evidence import Claim, claims, with_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runner(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    spec = importlib.util.spec_from_file_location("claims_runner", ROOT / "benchmarks" / "claims" / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


def claim(slug: str, text: str, seconds: float, effect: float = 0.5, verdict: str = "holds") -> Claim:
    return Claim(slug, text, "ratio", "lower", effect, 0.4, 0.6, verdict, 5, seconds, "2026-11-21", "abc", "a machine")


@pytest.mark.parametrize("slug", sorted(claims()))
def test_a_card_has_the_table_of_its_claims(slug):
    card = (ROOT / "docs" / "methods" / f"{slug}.md").read_text()
    assert card == with_table(card, claims()[slug]), f"{slug}: run `PYTHONPATH=src python -m benchmarks.claims --cards`"


def test_every_claim_comes_to_its_turn_and_time_is_kept(runner):
    rows = [claim(slug, text, 50.0) for slug in "abc" for text in "xyz"]
    seen = set()
    for day in range(len(rows)):
        chosen = runner.turn(rows, 100.0, day)
        assert chosen[0] == rows[day]
        seen |= set(chosen)
        total = sum(2 * row.seconds / row.seeds for row in chosen) + 20 * len({row.slug for row in chosen})
        assert total <= 100
    assert seen == set(rows)
    assert runner.turn([claim("a", "x", 1e6)], 10.0, 3), "one that is too long has its day, too"


def test_whoever_comes_first_pays_for_what_a_method_shares(runner):
    rows = [claim("a", "x", 400.0), claim("a", "y", 0.0), claim("b", "x", 10.0), claim("c", "x", 10.0)]
    assert [row.slug for row in runner.turn(rows, 100.0, 1)] == ["a"], "y alone would train for 400 s"
    assert [row.slug for row in runner.turn(rows, 100.0, 2)] == ["b", "c"]


def test_what_held_and_now_comes_out_worse_is_an_error(runner, tmp_path, monkeypatch):
    file = tmp_path / "claims.csv"
    head = "slug,claim,measure,better,effect,low,high,verdict,seeds,seconds,date,commit,machine\n"
    file.write_text(
        f"{head}a,x,ratio,lower,0.5,0.4,0.6,holds,5,9,2026-11-21,abc,m\n"
        "a,y,ratio,lower,1.01,0.9,1.1,tie,5,9,2026-11-21,abc,m\n"
        "a,z,ratio,lower,1.5,1.4,1.6,does not hold,5,9,2026-11-21,abc,m\n"
    )
    monkeypatch.setattr(runner.harness, "CLAIMS", file)

    def comes_out(text: str, verdict: str) -> str | None:
        answer = {"slug": "a", "claim": text, "measure": "ratio", "effect": 1.1, "verdict": verdict}
        return runner.contradiction(answer)

    assert comes_out("x", "holds") is None and comes_out("x", "tie") is None
    assert "`x` came out at 1.1, but its row says 0.500 [0.400, 0.600], holds" in comes_out("x", "does not hold")
    assert comes_out("y", "does not hold") is None and comes_out("new", "does not hold") is None
    assert "does not hold" in comes_out("z", "holds")


def test_a_name_that_has_no_claims_is_told_its_neighbour(runner):
    with pytest.raises(SystemExit, match=r"there are no claims of `lagrnge`\nhint: `lagrange`"):
        runner.slugs(["lagrnge"])
    assert runner.without_a_row(["lagrange", "moonlight"]) == ["moonlight"]


def test_a_file_that_breaks_is_told_and_nothing_is_kept(runner, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner.harness, "CLAIMS", tmp_path / "claims.csv")
    assert runner._done("lagrange", 3, [], 1.0, today=False) == 1
    assert runner._done("lagrange", 0, [], 1.0, today=False) == 1
    said = capsys.readouterr().err
    assert "ended with status 3" in said and "it has put no question" in said
    assert not (tmp_path / "claims.csv").exists()


def test_a_real_one_runs_and_is_gathered(runner):
    asked = runner.Asked(seeds=2, keep=False)
    ((slug, status, answers, _),) = runner.run({"lagrange": asked}, 1)
    assert (slug, status, len(answers)) == ("lagrange", 0, 1)
    assert answers[0]["seeds"] == 2 and answers[0]["effect"] <= 1
