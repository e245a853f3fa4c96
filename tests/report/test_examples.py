"""Where it hurt: the map of the held-back examples says what the files say, in words, as a table, and in a browser."""

import json
import re
import runpy
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.methods.data.dendromap import central, tree
from secateur.parts import thumbs
from secateur.report import report
from secateur.report.examples import data, picture, read, section

BROWSER = runpy.run_path(str(Path(__file__).with_name("browser.py")))
RESULT = {"model": "m", "budget": {"asked": "3 bits/weight"}, "spent": {"bits_per_weight": 3.0}, "edits": {}}
RESULT |= {"loss_before": 2.0, "loss_after": 2.1}


def leave(out: Path, n: int = 40, pictures: bool = False) -> np.ndarray:
    """What a cut leaves of n examples of four kinds, the last of which lost ten times as much; gives their kinds."""
    draw, kinds = np.random.default_rng(0), np.arange(n) % 4
    x = draw.normal(size=(n, 5)) * 0.1 + np.eye(5)[kinds] * 3
    made = tree(x)
    known = {"each": "example" if pictures else "window", "all": n, "of": list(range(n)), "children": made.children}
    known |= {"distance": made.distance, "central": central(made, x)}
    known["said"] = [f"kind {kind} <b>of</b>\ntext, number {at} " + "and on " * 20 for at, kind in enumerate(kinds)]
    kl = np.where(kinds == 3, 0.5, 0.05) + draw.random(n) / 100
    lost = {"kl": kl.tolist(), "rise": (kl - 0.1).tolist(), "right": [0.5] * n, "right_before": [0.6] * n}
    if pictures:
        wrong = kinds == 3
        lost |= {"right": (~wrong).astype(float).tolist(), "right_before": [1.0] * n}
        lost |= {"first": (kinds + wrong).tolist(), "first_before": kinds.tolist()}
        known["said"] = [f"label {kind}" for kind in kinds]
        known["pictures"] = thumbs.small(torch.from_numpy(draw.integers(0, 255, (n, 8, 8, 3)).astype(np.uint8)))
    out.mkdir(exist_ok=True)
    for name, told in (("examples", known), ("windows", lost), ("secateur", RESULT)):
        (out / f"{name}.json").write_text(json.dumps(told))
    if pictures:
        more = {"accuracy_before": 1.0, "accuracy_after": 0.75}
        (out / "secateur.json").write_text(json.dumps(RESULT | more))
    return kinds


def test_the_worst_is_said_in_words_and_the_table_adds_up(tmp_path):
    kinds = leave(tmp_path)
    seen = read(tmp_path, "nats per token")
    said = section(seen)
    lost = json.loads((tmp_path / "windows.json").read_text())["kl"]
    assert re.search(
        r"Most was lost on \d+ windows with a KL to the uncut of 0\.50\d\d nats per token, 3\.\d times", said
    )
    assert "In their midst: <q>kind 3 &lt;b&gt;of&lt;/b&gt; text, number" in said and "<b>" not in said
    rows = re.findall(r'<tr><td>(\d+)</td><td data-v="([^"]*)">', said)
    assert sum(int(n) for n, _ in rows) == 40
    assert sum(int(n) * float(mean) for n, mean in rows) == pytest.approx(sum(lost), rel=1e-4)
    assert [float(mean) for _, mean in rows] == sorted((float(mean) for _, mean in rows), reverse=True)
    worst = seen.tree.members(seen.tree.worst(seen.colours[0].values, 4)[0])
    assert set(kinds[worst]) == {3}
    drawn = picture(seen)
    areas = [float(w) * float(h) for w, h in re.findall(r'width="([\d.]+)" height="([\d.]+)" fill-opacity', drawn)]
    assert len(areas) == 12 and sum(areas) == pytest.approx(960 * 420, rel=0.05)
    assert "&lt;b&gt;" in drawn and "<b>" not in drawn


def test_pictures_tell_what_turned_wrong(tmp_path):
    leave(tmp_path, pictures=True)
    seen = read(tmp_path, "nats per example")
    assert [one.name for one in seen.colours] == ["KL to the uncut", "rise of the loss", "turned wrong"]
    assert seen.marked == [at for at in range(40) if at % 4 == 3]
    assert seen.said[2] == "label 2: taken for 2" and seen.said[3] == "label 3: taken for 3, now 4"
    assert "25.0%" in seen.colours[2].said(0.25) and len(data(seen)["examples"]["pictures"]) == 40


def test_where_there_is_nothing_nothing_is_said(tmp_path, caplog):
    assert read(tmp_path, "") is None and section(None) == "" and data(None) == {} and picture(None) == ""
    leave(tmp_path)
    (tmp_path / "windows.json").write_text(json.dumps({"kl": [0.1], "rise": [0.1]}))
    assert read(tmp_path, "") is None and "of different runs" in caplog.text
    leave(tmp_path, 1)
    assert section(read(tmp_path, "")) == "" and data(read(tmp_path, "")) == {}, "one window is no map"
    leave(tmp_path, 2)
    assert "the same as a table" in section(read(tmp_path, "")) and "Most was lost" not in section(read(tmp_path, ""))
    (tmp_path / "examples.json").write_text("{")
    assert "Where it hurt" not in report(tmp_path).read_text()


@pytest.mark.skipif(BROWSER["path"]() is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM")
def test_in_a_browser_one_comes_down_to_a_single_window(tmp_path):
    kinds = leave(tmp_path / "text")
    leave(tmp_path / "pictures", 300, pictures=True)
    words, small = (report(tmp_path / name) for name in ("text", "pictures"))
    home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # the browser may write on as it goes
    with home as place, BROWSER["browser"](Path(place) / "browser") as page:
        for wide, dark in ((390, True), (1280, False)):
            page.look(wide, 800, dark=dark, phone=wide < 500)
            page.go(words)
            assert page.ask("document.documentElement.scrollWidth") == wide
        tiles = "[...document.querySelectorAll('#lost button')]"
        counts = page.ask(f"{tiles}.map(one => parseInt(one.getAttribute('aria-label')) || 1)")
        assert sum(counts) == 40 and len(counts) == 14
        wide, high, area = page.ask(
            f"[lost.clientWidth, lost.clientHeight, {tiles}.reduce((s, t) => s + t.offsetWidth * t.offsetHeight, 0)]"
        )
        assert area == pytest.approx(wide * high, rel=0.02), "filled to the edge"
        colours = f"{tiles}.map(one => one.style.backgroundColor)"
        first = page.ask(colours)
        page.ask("document.getElementById('lost-1').click()")
        assert page.ask(colours) != first
        assert page.ask("document.getElementById('lost-scale').textContent").startswith("-0.4"), "nought in the middle"
        page.ask(f"{tiles}[0].focus()")
        for _ in range(9):
            if page.ask("document.querySelectorAll('#lost button').length") == 1:
                break
            page.press("Enter")
        assert page.ask("document.querySelectorAll('#lost button').length") == 1
        label = page.ask(f"{tiles}[0].getAttribute('aria-label')")
        assert label.startswith("one window: KL to the uncut 0.") and "zoom" not in label
        assert page.ask(f"{tiles}[0].textContent").count("<b>of</b>") == 1, "names are text"
        page.press("Escape")
        assert page.ask("document.querySelectorAll('#lost button').length") > 1
        page.ask("document.querySelector('#lost-crumbs button').click()")
        assert page.ask(f"{tiles}.length") == 14
        page.go(small)
        shown, edged = page.ask(
            "[document.querySelectorAll('#lost img').length, document.querySelectorAll('#lost .wrong').length]"
        )
        assert shown >= 200 and 0.2 < edged / shown < 0.3
        page.ask("window.given = [], window.give = (blob, name) => given.push(name)")
        page.ask("document.querySelector('.save button').click()")
        assert page.ask("given") == ["where-it-hurt.svg"]
        assert page.said == [] and set(kinds) == {0, 1, 2, 3}


def test_a_thousand_pictures_stay_below_the_limit(tmp_path):
    leave(tmp_path, 1000, pictures=True)
    draw = torch.randint(0, 256, (1000, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    known = json.loads((tmp_path / "examples.json").read_text()) | {"pictures": thumbs.small(draw)}
    (tmp_path / "examples.json").write_text(json.dumps(known))
    assert report(tmp_path).stat().st_size < 4_000_000
