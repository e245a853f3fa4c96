"""Loss curves: the line falls as the loss does, the table has the numbers, and a model alone has a page of its own."""

import math
import re
from xml.etree import ElementTree

import pytest

from secateur.model.history import History
from secateur.report import figures, report
from secateur.report.training import POINTS, curve, section, told
from secateur.types import PlanError


def trained(n: int = 640, look: int = 64) -> History:
    history = History(seconds=62.0)
    for step in range(1, n + 1):
        history.took(step, 2.0 + 5.0 * math.exp(-step / 100), 1024)
        if look and step % look == 0:
            history.held(step, 2.2 + 5.0 * math.exp(-step / 100))
    return history


def test_the_line_falls_and_every_look_is_a_point():
    drawn = curve(trained())
    ElementTree.fromstring(drawn)
    for line in re.findall(r'<polyline class="\w+" points="([^"]*)"', drawn):
        places = [tuple(map(float, point.split(","))) for point in line.split()]
        assert 100 < len(places) <= POINTS and places == sorted(places), "to the right and down the page"
    assert drawn.count("<circle") == 10 and "step 640: held out 2.2083 nats per token" in drawn


def test_it_is_said_in_words_and_as_a_table():
    said = told(trained())
    assert said.startswith("640 steps, 655,360 tokens, in 1 min 2 s. The loss fell from 6.9502 to 2.0")
    assert said.endswith("of what is held out to 2.2083.")
    drawn = section(trained(), "<b>model")
    assert "&lt;b&gt;model" in drawn and "<td>655,360</td>" in drawn and drawn.count("<tr>") == 11
    assert section(trained(look=0), "m").count("<tr>") == 17 and "held out</li>" not in section(trained(look=0), "m")


def test_long_and_broken_ones_can_be_drawn():
    history = trained(5000)
    history.took(5001, float("nan"), 1)
    assert "nan" not in curve(history) and len(curve(history)) < 60_000
    flat = History()
    for step in (1, 2):
        flat.took(step, 1.0, 1)
    assert "<polyline" in curve(flat)
    for none in (None, History()):
        assert section(none, "m") == "" and curve(none) == ""
    flat.losses = [float("nan")] * 2
    assert curve(flat) == ""


def test_a_model_alone_has_a_page_of_its_own(tmp_path):
    trained().save(tmp_path)
    page = report(tmp_path).read_text()
    assert f"{tmp_path.name}, trained" in page and "655,360" in page and "<polyline" in page
    (file,) = figures(tmp_path, tmp_path / "figures")
    assert file.name == "training.svg" and "var(" not in file.read_text()
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(PlanError, match="there is no cut"):
        report(tmp_path)
