"""Claims and cards: read, counted, put into tables; nothing says more than was seen."""

import pytest

from secateur import evidence
from secateur.evidence import BEGIN, END, Claim

HEAD = "slug,claim,measure,better,effect,low,high,verdict,seeds,seconds,date,commit,machine\n"
ROW = 'rtn,"{claim}",ratio,lower,{effect},{low},{high},{verdict},5,9.5,2026-11-21,abc+,"AMD EPYC, 2 cores"\n'


@pytest.fixture
def rows(tmp_path) -> list[Claim]:
    file = tmp_path / "claims.csv"
    file.write_text(
        HEAD
        + ROW.format(claim="z first, though z", effect=0.5, low=0.4, high=0.6, verdict="holds")
        + ROW.format(claim="a | b", effect=1.01, low=0.99, high=1.2, verdict="tie")
        + ROW.format(claim="worse", effect=2, low=1.5, high=3, verdict="does not hold")
    )
    return evidence.claims(file)["rtn"]


def test_claims_are_read_in_the_order_they_are_asked(rows):
    assert [row.claim for row in rows] == ["z first, though z", "a | b", "worse"]
    assert (rows[0].effect, rows[0].low, rows[0].high, rows[0].seeds) == (0.5, 0.4, 0.6, 5)
    assert rows[0].number == "0.500 [0.400, 0.600]"


def test_no_file_is_no_claims(tmp_path):
    assert evidence.claims(tmp_path / "none.csv") == {}


def test_what_does_not_hold_says_that_it_was_seen_at_this_scale_only(rows):
    assert [row.said for row in rows] == ["holds", "tie", "does not hold at this scale"]
    assert evidence.tally(rows) == "1 holds, 1 tie, 1 does not hold"
    assert evidence.tally(rows[:1]) == "holds"
    assert evidence.tally(rows[:1] * 2 + rows[1:2] * 3) == "2 hold, 3 ties"
    assert evidence.tally([]) == ""


def test_a_table_cannot_be_broken_by_a_claim(rows):
    lines = evidence.table(rows).splitlines()
    assert [line.count("|") for line in lines[:5]] == [6] * 5
    assert "does not hold at this scale" in lines[4]
    assert "AMD EPYC, 2 cores" in lines[-1]


@pytest.mark.parametrize(
    ("card", "before", "after"),
    [
        ("# a card\n\n**What differs.** Much.\n", "# a card\n\n", "\n**What differs.** Much.\n"),
        ("# a card\n", "# a card\n\n", ""),
        (f"# a card\n\n{BEGIN}\nold\n{END}\n\nmore\n", "# a card\n\n", "\nmore\n"),
    ],
)
def test_the_table_takes_its_place_in_the_card_and_keeps_it(rows, card, before, after):
    done = evidence.with_table(card, rows)
    assert done == f"{before}{BEGIN}\n{evidence.table(rows)}{END}\n{after}"
    assert evidence.with_table(done, rows) == done


def test_a_card_is_told_without_the_table(tmp_path, monkeypatch, rows):
    file = tmp_path / "card.md"
    file.write_text(evidence.with_table("# a card\n\n**What differs.** Much.\n", rows))
    monkeypatch.setattr(evidence, "shelf", lambda path, packaged: file)
    assert evidence.card("rtn") == "# a card\n\n**What differs.** Much.\n"


def test_the_shelf_of_a_wheel_comes_first(tmp_path, monkeypatch):
    home = tmp_path / "lib" / "secateur"
    (home / "shelf").mkdir(parents=True)
    monkeypatch.setattr(evidence, "HERE", home)
    assert evidence.shelf("benchmarks/claims.csv", "claims.csv") == tmp_path.parent / tmp_path / "benchmarks/claims.csv"
    (home / "shelf" / "claims.csv").write_text(HEAD)
    assert evidence.shelf("benchmarks/claims.csv", "claims.csv") == home / "shelf" / "claims.csv"
