"""`secateur.law`: from a paper's constants or a table to predictions, and back; wrong questions say what is wrong."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

import secateur
from secateur.law.answering import Answering
from secateur.law.asking import outside, points
from secateur.law.table import of, read
from secateur.law.trying import confounded
from secateur.methods.laws import shannon_law
from secateur.methods.laws.qid_law import laws
from secateur.parts.laws import CHINCHILLA_QID, KUMAR, QID, amount, counted
from secateur.types import DataError, SecateurError

PLANTED = {"k": 0.02, "beta": 0.5, "alpha": 0.25, "gamma": 5.0}


@pytest.fixture
def runs() -> dict[str, np.ndarray]:
    """Four sizes, four lengths, three widths in bits, one in ten off."""
    axes = np.meshgrid([1e8, 4e8, 1e9, 4e9], [1e9, 1e10, 5e10, 2e11], [2.0, 3.0, 4.0])
    rows = dict(zip(QID.columns, (x.ravel() for x in axes), strict=True))
    noise = np.random.default_rng(0).normal(0, 0.1, len(rows["bits"]))
    return rows | {"rise": QID.at(rows, PLANTED) * np.exp(noise)}


@pytest.fixture
def file(runs, tmp_path):
    path = tmp_path / "runs.csv"
    lines = [
        ",".join(["model", *runs]),
        *(",".join(["x", *map(repr, map(float, row))]) for row in zip(*runs.values(), strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_paper_s_constants_without_a_table():
    found = secateur.law("qid-law", at=["params=7B, tokens=2T, bits=3", {"params": 1e9, "tokens": 1e11, "bits": 4}])
    far, near = found["predictions"]
    assert far["value"] == pytest.approx(0.6937, abs=1e-4) and far["interval"] is None and near["outside"] == []
    assert far["outside"] == ["tokens=2T is 6.7 times the most it was fitted on (300B)"]
    assert "perplexity times 2 " in far["says"].replace(")", " ") and "too trained" in far["says"]
    assert "Pythia" in found["source"] and "no spread" in found["notes"][0] and found["fits"] == []
    assert [row["at"]["bits"] for row in secateur.law("qid-law", at="params=7B, tokens=2T")["predictions"]] == [2, 3, 4]


def test_turned_around_it_agrees_with_itself():
    (found,) = secateur.law("qid-law", at="params=7B, bits=4", find="tokens")["found"]
    assert found["target"] == 0.2 and found["value"] == pytest.approx(3.804e12, rel=1e-3)
    back = secateur.law("qid-law", at={"params": 7e9, "bits": 4, "tokens": found["value"]})["predictions"][0]
    assert back["value"] == pytest.approx(0.2)
    (bits,) = secateur.law("qid-law", at="params=7B, tokens=2T", find="bits", target=0.05)["found"]
    assert 4 < bits["value"] < 5.5 and "beyond" not in bits["says"]
    assert any("bits=" in words for words in bits["outside"]), "4.8 bits are more than the paper's four"


def test_a_table_gives_intervals_and_a_rival(runs):
    found = secateur.law("qid-law", runs, at="params=2B, tokens=1e11, bits=3")
    for one in found["parameters"]:
        low, high = one["interval"]
        assert low < PLANTED[one["name"]] < high or one["value"] == pytest.approx(PLANTED[one["name"]], rel=0.25)
    (prediction,) = found["predictions"]
    truth = float(QID.at(prediction["at"], PLANTED))
    assert prediction["interval"][0] < truth < prediction["interval"][1] and prediction["outside"] == []
    ours, rival = found["fits"]
    assert (ours["law"], rival["law"]) == ("qid", "kumar")
    assert ours["held_out_r2"] > 0.9 and ours["held_out_r2"] > rival["held_out_r2"] and ours["r2"] > 0.9
    few = runs | {"bits": np.where(runs["bits"] == 2, 2.5, runs["bits"])}
    asked = secateur.law("qid-law", few, at="params=2B, tokens=1e11", draws=2)["predictions"]
    assert [row["at"]["bits"] for row in asked] == [2.5, 3, 4], "the table's own"
    assert "tokens >= 200B, 12 of 48 rows" in found["notes"][0], "of four sizes the longest are held back"


def test_a_rival_that_does_better_is_told(runs):
    rows = runs | {"rise": KUMAR.at(runs, {"C": 0.05, "gD": 0.5, "gN": 0.3, "g": 0.5})}
    told = [note for note in secateur.law("qid-law", rows, draws=2)["notes"] if note.startswith("kumar")]
    assert len(told) == 1 and "predicts what is held back better" in told[0]
    luck = runs | {"rise": np.random.default_rng(1).uniform(0.1, 1, 48)}
    assert any("worse than the mean" in note for note in secateur.law("qid-law", luck, draws=2)["notes"])


def test_a_column_is_found_with_its_interval(runs):
    (found,) = secateur.law("qid-law", runs, at="params=1B, bits=3", find="tokens", target="0.1")["found"]
    truth = (0.1 * 1e9**0.25 * 3**5 / 0.02) ** 2
    assert found["interval"][0] < truth < found["interval"][1] and "95% between" in found["says"]


def test_a_valley_is_crossed_twice_and_has_a_lowest_point():
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 5), np.geomspace(1e9, 1e12, 9)))
    rows = {"params": n, "tokens": d}
    true = {"A": 482.0, "a": 0.348, "B": 2085.0, "b": 0.366, "E": 1.817, "k": 3.8e-4, "beta": 0.525, "alpha": 0.226}
    rows["loss"] = CHINCHILLA_QID.at(rows, true)
    along = np.geomspace(1e9, 1e12, 4000)
    valley = CHINCHILLA_QID.at({"params": 1e9, "tokens": along}, true)
    ask = {"draws": 20, "table": rows, "at": {"params": 1e9}, "find": "tokens"}
    twice = secateur.law("shannon-law", target=float(valley.min()) + 0.2, **ask)
    assert len(twice["found"][0]["also"]) == 1 and "again with tokens=" in twice["found"][0]["says"]
    assert twice["found"][0]["value"] < along[valley.argmin()] < twice["found"][0]["also"][0]
    known = Answering(shannon_law.laws[0], {one["name"]: one["value"] for one in twice["parameters"]})
    assert known.turned({"params": 1e9}, "tokens", None)["value"] == pytest.approx(along[valley.argmin()], rel=0.15)
    none = known.turned({"params": 1e9}, "tokens", 0.5)
    assert none["value"] is None and "there is no loss of 0.5" in none["says"]
    assert {fit["law"] for fit in twice["fits"]} == {"shannon", "chinchilla", "chinchilla + qid", "openai"}


def test_shares_of_training_are_chosen_by_the_law():
    found = secateur.law("compute-optimal-qat", at="params=1B, tokens=100B, bits=4")["predictions"][0]
    assert found["value"] == pytest.approx(0.2808, abs=1e-4)
    assert found["more"]["tokens rounded"] + found["more"]["tokens full"] == pytest.approx(1e11)
    few = secateur.law("compute-optimal-qat", at="params=1B, tokens=100M, bits=4")["predictions"][0]
    assert few["value"] is None and "says nothing" in few["says"]


def test_rows_are_chosen_and_held_back(runs):
    found = secateur.law("qid-law", runs, where="bits >= 3, tokens > 1B", hold_out="params > 1B", hold={"gamma": 5})
    assert found["source"] == "fitted to 24 rows" and found["notes"][0] == "24 of 48 rows have bits >= 3, tokens > 1B"
    assert "params > 1B, 6 of 24 rows" in found["notes"][1]
    (gamma,) = [one for one in found["parameters"] if one["name"] == "gamma"]
    assert gamma["held"] and gamma["interval"] == [5.0, 5.0] and found["fits"][0]["free"] == 3


def test_bits_that_a_law_does_not_read_are_told(runs):
    (said,) = confounded(shannon_law.laws[0], of(runs))
    assert said == 'the rows have bits of 2, 3, 4, which this law does not read: take one, --where "bits = 2"'
    assert confounded(laws[0], of(runs)) == []


def test_tables_in_every_dress(file, tmp_path):
    whole = read(file)
    assert len(whole) == 48 and set(whole.columns) == {*QID.columns, "rise"}, "words are left out"
    zipped = tmp_path / "runs.csv.gz"
    zipped.write_bytes(gzip.compress(file.read_bytes()))
    assert (read(zipped).columns["rise"] == whole.columns["rise"]).all()
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.table(dict(whole.columns)), tmp_path / "runs.parquet")
    assert (read(tmp_path / "runs.parquet").columns["rise"] == whole.columns["rise"]).all()
    spelled = of({"run": [1, 1, 2], "params": ["7B", "70M", ""]})
    assert spelled.columns["params"][:2].tolist() == [7e9, 7e7] and np.isnan(spelled.columns["params"][2])
    assert spelled.runs is not None and spelled.runs.tolist() == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("ask", "words", "hint"),
    [
        ({"name": "qid"}, "there is no method `qid`", "qid-law"),
        ({"name": "shannon-law"}, "gives no constants", "params, tokens, loss"),
        ({"at": "params=7B, token=2T"}, "does not read `token`", "did you mean `tokens`"),
        ({"at": "params=7B"}, "nothing is said of tokens", "--find tokens"),
        ({"at": "params=7B, tokens=much"}, "cannot read the number `much`", "7B, 2T"),
        ({"at": "params=7B, tokens"}, "cannot read `tokens`", "tokens=2T"),
        ({"at": "params=0, tokens=2T"}, "params=0 is nothing", "above zero"),
        ({"find": "width", "at": "params=7B"}, "cannot be turned around to `width`", "params, tokens, bits"),
        ({"target": 0.2, "at": "params=7B, tokens=2T"}, "needs a column", "--find tokens"),
        ({"where": "bits = 3"}, "only of a table", "TABLE"),
        ({"table": "none.csv"}, "there is no table none.csv", "with a header"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_question(ask, words, hint):
    name = ask.pop("name", "qid-law")
    with pytest.raises(SecateurError, match=words) as said:
        secateur.law(name, ask.pop("table", None), **ask)
    assert hint in said.value.hint


def test_what_is_wrong_with_a_table(runs, tmp_path):
    for how, words in (
        ({"where": "bits = 9"}, "no row of the table has bits = 9"),
        ({"where": "bits is 3"}, "cannot read the condition"),
        ({"where": "depth > 3"}, "no column of numbers `depth`"),
        ({"hold_out": "params > 1T"}, "holds back 0 of 48 rows"),
        ({"where": "bits = 3"}, "cannot tell `k`, `gamma`"),
    ):
        with pytest.raises(SecateurError, match=words):
            secateur.law("qid-law", runs, **how)
    with pytest.raises(DataError, match=r"`rise` in row 3 .* not above zero"):
        secateur.law("qid-law", runs | {"rise": np.where(np.arange(48) == 2, -0.001, runs["rise"])})
    (tmp_path / "a.csv").write_text("params,tokens\n")
    (tmp_path / "a.txt").write_text("x")
    for name, words in (("a.csv", "holds no rows"), ("a.txt", "cannot read")):
        with pytest.raises(DataError, match=words):
            read(tmp_path / name)
    with pytest.raises(DataError, match="not equally long"):
        of({"params": [1], "tokens": [1, 2]})


def test_a_picture_has_a_line_a_point(runs, tmp_path):
    ask = {"at": "params=1B, tokens=2e12", "out": tmp_path / "new" / "rise.svg", "draws": 20}
    assert secateur.law("qid-law", runs, **ask)["picture"] == str(ask["out"])
    told = ask["out"].read_text()
    assert (
        told.startswith("<svg")
        and "params=1B, bits=2" in told
        and "rise, nats per token" in told
        and "var(" not in told
    )
    assert told.count("polyline") == told.count("polygon") == 3, "three widths, each with a band"
    assert told.count('r="3.5"') == 12, "the rows of that size"
    secateur.law("qid-law", at="params=7B, tokens=2T", out=ask["out"], along="bits")
    assert ask["out"].read_text().count("polyline") == 1, "along the bits three widths lie on one line"
    for wrong, words in (({"out": "rise.png"}, "written as .svg"), ({"along": "depth"}, "nothing to draw along depth")):
        with pytest.raises(SecateurError, match=words):
            secateur.law("qid-law", **{"at": "params=7B, tokens=2T", "out": tmp_path / "x.svg", **wrong})


def test_counts_are_read_and_said():
    assert [amount(text) for text in ("7B", "2t", "300 M", "1.5e9", "1_000", ".5", "4k")] == [
        7e9,
        2e12,
        3e8,
        1.5e9,
        1000,
        0.5,
        4000,
    ]
    assert [counted(value) for value in (7e9, 1.234e12, 3.8e15, 950, 999.6, 0.05)] == [
        "7B",
        "1.23T",
        "3.8e+03T",
        "950",
        "1e+03",
        "0.05",
    ]


def test_what_lies_outside():
    assert outside({"a": 5.0, "b": 1.0}, {"a": (1, 5), "b": (None, None)}) == []
    assert outside({"a": 5000.0, "b": 1.0}, {"a": (1, 5), "b": (2, 9)}) == [
        "a=5K is 1,000 times the most it was fitted on (5)", "b=1 is less than it was fitted on (2 at least)",
    ]  # fmt: skip
    assert points("tokens=2T, params=7B, bits=3", laws[0], None) == [{"params": 7e9, "tokens": 2e12, "bits": 3}]


def test_the_command(secateur, file):
    said = secateur("law", "--json").stdout
    assert {one["law"] for one in json.loads(said)["laws"]} >= {"qid-law", "shannon-law", "compute-optimal-qat"}
    done = secateur("law", "qid-law", file, "--at", "params=2B, tokens=1T", "--hold-out", "params")
    told = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    for word in (
        "3 bits are predicted to cost",
        "95% between",
        "Beyond what is known: tokens=1T is 5 times",
        "kumar",
        "R2 held back",
    ):
        assert word in told, word
    assert "again: secateur law" in done.stderr
    wrong = secateur("law", "qid-law", file, "--where", "bits = 3")
    assert wrong.returncode == 2 and "hint: " in wrong.stderr and "--hold gamma=" in wrong.stderr
