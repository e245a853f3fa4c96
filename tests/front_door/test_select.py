"""`secateur select` as a user has it: files in, the same kind out, a selection, a page; and what bad input gets."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import secateur as door
from secateur.cli import main
from secateur.methods.data.simcore import SimCore
from secateur.types import BudgetError, DataError, ModelError, PlanError, SecateurError

WORDS = "the a tree root stem leaf cuts grows keeps bends under over red green old young quickly slowly and or if"


@pytest.fixture(scope="module")
def model(tiny) -> str:
    return str(tiny("llama", max_position_embeddings=64))


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    """Sixty rows, every third in capitals and digits."""
    draw, file = random.Random(0), tmp_path_factory.mktemp("pool") / "pool.csv"
    with file.open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(["id", "text"])
        for at in range(60):
            odd = (
                "".join(draw.choices("0123456789 XYZ", k=30))
                if at % 3 == 0
                else " ".join(draw.choices(WORDS.split(), k=8))
            )
            lines.writerow([at, odd])
    return file


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Path:
    draw, file = random.Random(1), tmp_path_factory.mktemp("target") / "mine.txt"
    file.write_text("\n".join("".join(draw.choices("0123456789 XYZ", k=30)) for _ in range(6)) + "\n")
    return file


@pytest.fixture
def pictures(tmp_path) -> Path:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (40, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "pool.npz", images=images, number=np.arange(40, dtype=np.int16))
    (tmp_path / "choosing_net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), "
        "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))\n"
        '    net.preprocessing = {"shape": (3, 8, 8), "scale": 1 / 255}\n    return net\n'
    )
    return tmp_path / "pool.npz"


def test_what_is_like_mine_is_kept_and_written_as_it_came(model, pool, target, tmp_path):
    out = tmp_path / "out"
    told = door.select(model, pool, "25%", target=target, out=out)
    assert told["used"]["examples"] == 15 == len(told["indices"]) and told["method"] == "simcore"
    assert sum(at % 3 == 0 for at in told["indices"]) >= 13, "what is in capitals and digits, as the target is"
    assert told["charged"]["forward"] == 66 and told["charged"]["backward"] == 0, "the pool and the target, once each"
    with pool.open(newline="") as file:
        rows = list(csv.reader(file))
    with (out / "pool.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [rows[0], *(rows[1 + at] for at in told["indices"])]
    saved = json.loads((out / "selection.json").read_text())
    assert saved["indices"] == told["indices"] == sorted(told["indices"]) and saved["keep"]["most"] == 15
    assert saved["knobs"] == {"clusters": 100, "patience": 20, "threshold": 0.95, "stop": True}
    with (out / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["index"]) for line in lines] == list(range(60))
    assert [at for at, line in enumerate(lines) if line["kept"] == "1"] == told["indices"]
    clusters = told["clusters"]
    assert sum(one["count"] for one in clusters) == 60 and sum(one["kept"] for one in clusters) == 15
    for group, one in enumerate(clusters):
        mine = [line for line in lines if line["cluster"] == str(group)]
        assert len(mine) == one["count"] and sum(line["kept"] == "1" for line in mine) == one["kept"]
    assert "What was kept, and what was dropped" in (out / "report.html").read_text()


def test_the_same_again_is_the_same_bytes(model, pool, target, tmp_path):
    for name in ("one", "two"):
        door.select(model, pool, 10, target=target, out=tmp_path / "out", seed=3)
        (tmp_path / "out").rename(tmp_path / name)
    for name in ("pool.csv", "scores.csv", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    one, two = (json.loads((tmp_path / name / "selection.json").read_text()) for name in ("one", "two"))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_scores_take_the_ends_and_random_takes_any(model, pool):
    hard, easy = (door.select(model, pool, 6, method=name) for name in ("loss", "easy"))
    losses = hard["means"]["loss"]
    assert losses["kept"] > losses["all"] > easy["means"]["loss"]["kept"]
    sure = door.select(model, pool, 6, method="margin")["means"]["margin"]
    assert sure["kept"] < sure["all"]
    one, other = (door.select(model, pool, 6, seed=seed)["indices"] for seed in (0, 1))
    assert one != other and len(one) == 6 and door.select(model, pool, 6, seed=0)["indices"] == one


def test_tokens_are_a_budget_too(model, pool, target):
    told = door.select(model, pool, "200 tokens", target=target, method="simcore(stop=False)")
    assert 150 < told["used"]["tokens"] <= 200 and told["keep"]["unit"] == "tokens"
    with pytest.raises(BudgetError, match="which no row fits into"):
        door.select(model, pool, "3 tokens")


def test_pictures_without_labels(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = door.select("choosing_net:make", pictures, "20%", method="entropy", out="out")
    with np.load(pictures) as was, np.load(tmp_path / "out" / "pool.npz") as kept:
        assert kept["number"].tolist() == told["indices"] and len(kept["number"]) == 8
        assert np.array_equal(kept["images"], was["images"][told["indices"]])
    assert set(told["means"]) == {"entropy", "margin"} and "tokens" not in told["used"]
    with pytest.raises(DataError, match="no labels, so there is no loss"):
        door.select("choosing_net:make", pictures, method="loss")
    with pytest.raises(BudgetError, match="pictures have no tokens"):
        door.select("choosing_net:make", pictures, "9 tokens")
    aimed = door.select("choosing_net:make", pictures, 4, target=tmp_path / "out" / "pool.npz")
    assert set(aimed["indices"]) <= set(told["indices"]), "a picture is most like itself"


def test_bad_input_is_told_in_a_sentence(model, pool, target, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n")
    pool_of_two = tmp_path / "two.txt"
    pool_of_two.write_text("one line\nanother\n")

    def refused(kind: type[SecateurError], message: str, hint: str, *places, **more) -> None:
        with pytest.raises(kind) as said:
            door.select(*places, **more)
        assert message in said.value.message and hint in said.value.hint

    refused(BudgetError, "the data holds 60 rows", "at most 60", model, pool, 61)
    refused(BudgetError, "holds 2 lines: that is not one", "--keep 1", model, pool_of_two, "10%")
    refused(DataError, "holds no text", "give a file", model, pool, target=empty)
    refused(DataError, "there are none", "--target FILE", model, pool, method="simcore")
    refused(SecateurError, "`entropy` looks at no target", "--target out", model, pool, target=target, method="entropy")
    refused(PlanError, "no method `simcor`", "simcore", model, pool, method="simcor")
    refused(DataError, "there is no file nowhere.txt", "give a text", model, "nowhere.txt")
    refused(DataError, "is a folder", "one .jsonl", model, tmp_path)
    refused(DataError, "windows of 99 tokens are longer", "--seq-len 64", model, pool, seq_len=99)
    refused(SecateurError, "would be written over", "another place", model, pool, out=pool.parent)
    refused(SecateurError, "is a file, and a folder is written", "-o out", model, pool, out=empty)
    assert list(tmp_path.iterdir()) == [empty, pool_of_two] or len(list(tmp_path.iterdir())) == 2, "nothing was written"


def test_on_the_command_line(model, pool, target, tmp_path, monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["secateur", "select", *map(str, words)])
        try:
            status = main()
        except SystemExit as done:
            status = int(done.code or 0)
        return status, *capsys.readouterr()

    out = tmp_path / "out"
    status, told, said = run(model, "--data", pool, "--target", target, "--keep", "25%", "-o", out)
    assert status == 0 and "15 of 60 rows (25.0%), 25% asked for" in told
    assert str(out / "report.html") in told.replace("\n", ""), "long paths are folded"
    assert (
        "looking at the target: 6/6" in said and "looking: 60/60" in said and f"again: secateur select {model}" in said
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {pool}\nkeep: 5\nmethod: simcore(stop=False)\ntarget: {target}\n")
    status, told, said = run(model, "--recipe", recipe, "--keep", "3", "-o", out, "--json")
    found = json.loads(told)
    assert status == 0 and len(found["indices"]) == 3 and found["knobs"]["stop"] is False
    status, told, said = run(model, "--keep", "3", "-o", out)
    assert status == 2 and "missing --data" in said and "hint: like --data" in said
    status, told, said = run(model, "--data", pool, "--keep", "99%%", "-o", tmp_path / "no")
    assert status == 2 and "cannot read `--keep 99%%`" in said and not (tmp_path / "no").exists()


def test_what_it_keeps_is_what_the_method_says(model, pool, target):
    """Through the door and by hand from the vectors: the same."""
    from secateur.parts.eyes.opening import open_eye
    from secateur.parts.select import Keep

    eye = open_eye(model, pool, target, None, None, None, torch.device("cpu"), lambda *_: None)
    room = Keep.parse("12").room(60, None)
    mine = SimCore().choose(eye.target.see().vectors, eye.see().vectors, room, torch.Generator().manual_seed(0))
    assert sorted(mine.at.tolist()) == door.select(model, pool, 12, target=target)["indices"]


@pytest.fixture
def rated(tmp_path) -> Path:
    """Thirty rows that somebody has rated, five of them of a rare style."""
    rows = [{"text": f"row {at}", "good": at % 6, "deep": 5 - at % 6, "style": ["rare"] if at < 5 else "usual, long"}
            for at in range(30)]  # fmt: skip
    file = tmp_path / "rated.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_ratings_and_styles_may_stand_in_columns(model, rated, pool):
    told = door.select(model, rated, 12, method="mmssr(ratings='good, deep', styles='style')")
    assert told["about"]["styles"] == 3 and told["about"]["capabilities"] == 2
    assert sum(at < 5 for at in told["indices"]) >= 4, "the rare style has its share"
    best = door.select(model, rated, 3, method="mmssr(ratings='good', groups=1)")["scores"]
    assert best == [5.0] * 3
    even = door.select(model, pool, 18, method="mmssr(groups=3)")
    assert even["used"]["examples"] == 18 and min(even["about"]["kept_of_each_style"]) >= 1
    with pytest.raises(DataError, match=r"has no column `fine`\nhint: its columns are deep, good, style, text"):
        door.select(model, rated, 3, method="mmssr(ratings='fine')")
    with pytest.raises(DataError, match="holds more than numbers"):
        door.select(model, rated, 3, method="mmssr(ratings='text')")


def test_a_cascade_looks_less_and_draws_its_map_from_a_glance(model, pool, tmp_path, pictures, monkeypatch):
    told = door.select(model, pool, 6, method="selectformer(wide=2, second=0.8)", out=tmp_path / "out")
    fitted, first, second = told["charged"]["phases"]
    assert [fitted["examples"], first["examples"]] == [12, 60] and 12 <= second["examples"] <= 24
    assert told["about"]["survivors"] == [60, 12] and 0 < first["share_of_a_pass"] < second["share_of_a_pass"] < 1
    assert told["charged"]["forward"] == pytest.approx(
        sum(one["examples"] * one["share_of_a_pass"] for one in told["charged"]["phases"])
    )
    assert sum(one["kept"] for one in told["clusters"]) == 6 and set(told["means"]) == {"tokens", "entropy, by proxy"}
    last_word = door.select(model, pool, 6, method="selectformer(wide=19, exact=True)")
    whole = door.select(model, pool, 6, method="entropy")
    assert last_word["indices"] == whole["indices"], "where the whole network sees all that survive, it is its choice"
    monkeypatch.chdir(tmp_path)
    assert len(door.select("choosing_net:make", pictures, 4, method="selectformer")["indices"]) == 4
    (tmp_path / "plain_net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.read = nn.Linear(192, 4)\n        self.preprocessing = {'shape': (3, 8, 8)}\n"
        "    def forward(self, x):\n        return self.read(x.flatten(1))\n"
    )
    with pytest.raises(ModelError, match=r"no repeated parts behind which it could stop\nhint: take --method entropy"):
        door.select("plain_net:Net", pictures, 4, method="selectformer")
