"""The page of a bench: all figures are on it, names stay text, what is missing is said, no browser complains."""

import json
import re
import runpy
import tempfile
from pathlib import Path

import pytest

from secateur.bench.versus import Entry, empty_row
from secateur.report import figures, report
from secateur.report.benched import differences, draw
from secateur.types import SecateurError

BROWSER = runpy.run_path(str(Path(__file__).with_name("browser.py")))


def row(contestant: str, budget: str, size: int, kls: list[float], more: float | None = None, **about) -> dict:
    known = empty_row(contestant, budget) | {"bytes": size, "bits_per_weight": size / 100, "agreement": 0.9, **about}
    if more is not None:
        known |= {"kl_more": more, "kl_more_interval": [more / 2, more * 2]}
    return Entry(known, kls, [2 * kl for kl in kls]).row


ROWS = [
    row(
        "two-sided",
        "4 bits/weight",
        400,
        [0.01, 0.02, 0.03],
        round="two-sided",
        allocate="lagrange",
        damage="kronecker",
    ),
    row("uniform+<b>gptq", "4 bits/weight", 390, [0.1, 0.2, 0.3], 0.18),
    row("two-sided", "380 bytes", 380, [0.02, 0.03, 0.04], round="two-sided", allocate="lagrange", damage="kronecker"),
    row("hqq w3g64", "380 bytes", 380, [0.02, 0.03, 0.05], 0.0002, tool="hqq", version="0.2.8", seconds=61.0),
    empty_row("autoround", "4 bits/weight") | {"tool": "autoround", "note": "ended with 1: no <such> kernel"},
]
RESULT = {"model": "m/<i>tiny", "data": "text.txt", "text": None, "reference": "two-sided", "again": "secateur bench m"}
RESULT |= {"finished": True, "budgets": ["4 bits/weight"], "format": "compressed-tensors", "rows": ROWS}


def test_what_is_known_stands_on_the_page():
    page = draw(RESULT)
    for said in ("hqq w3g64", "0.0333", "secateur bench m", "1 min 1 s", "Version 0.2.8", "autoround at 4 bits"):
        assert said in page, said
    assert "<strong>two-sided</strong>" in page and "arXiv 2210.17323" in page
    assert "not finished" not in page and "not finished" in draw({**RESULT, "finished": False})
    assert "Nothing is measured yet" in draw({**RESULT, "rows": [], "finished": False})


def test_names_are_text():
    page = draw(RESULT)
    assert "<b>" not in page and "<i>tiny" not in page and "no &lt;such&gt; kernel" in page


def test_differences_lie_on_their_side_of_the_line():
    drawn = differences([*ROWS, row("ours", "380 bytes", 380, [0.01], -0.01)], "two-sided")
    axis = float(re.findall(r'class="axis" x1="([\d.]+)"', drawn)[0])
    worse, near, better = map(float, re.findall(r'<circle class="\w+" cx="([\d.]+)"', drawn))
    assert better < axis < near < worse and "nan" not in drawn
    assert differences(ROWS[:1], "two-sided") == ""


def test_the_report_of_a_folder_is_that_of_its_bench(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(RESULT))
    assert report(tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_text() == draw(RESULT)
    drawn = figures(tmp_path, tmp_path / "figures")
    assert [file.name for file in drawn] == ["frontier.svg", "differences.svg"]
    assert all("xmlns" in file.read_text() and "var(" not in file.read_text() for file in drawn)
    (tmp_path / "bench.json").write_text("{")
    with pytest.raises(SecateurError, match=r"cannot read .*bench\.json"):
        report(tmp_path)


@pytest.mark.skipif(BROWSER["path"]() is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM")
def test_a_browser_has_no_complaints(tmp_path):
    file = tmp_path / "report.html"
    file.write_text(draw(RESULT))
    home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # the browser may write on as it goes
    with home as place, BROWSER["browser"](Path(place) / "browser") as page:
        for wide, dark in ((390, True), (1280, False)):
            page.look(wide, 800, dark=dark, phone=wide < 500)
            page.go(file)
            assert page.ask("document.documentElement.scrollWidth") == wide
        page.ask("document.querySelectorAll('table.sorts th button')[4].click()")
        first = page.ask("[...document.querySelectorAll('table.sorts tbody tr')].map(row => row.cells[1].textContent)")
        assert first == ["uniform+<b>gptq", "hqq w3g64", "two-sided", "two-sided"], "sorted by KL, the largest first"
        page.ask(
            "window.given = [], window.give = (blob, name) => given.push(name),"
            " document.querySelectorAll('.save button:first-child').forEach(one => one.click())"
        )
        assert page.ask("given") == ["frontier.svg", "differences.svg"]
        assert page.said == []
