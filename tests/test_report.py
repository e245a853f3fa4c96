"""The report: every figure of the result is on the page, nothing comes from outside, and names cannot break it."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from secateur.parts.edits import parse
from secateur.parts.menus import save_menu
from secateur.report import report
from secateur.types import Matrix, Menu, PlanError, Unit

EDITS = {"layers.0.proj": "int(bits=2, group=64)", "layers.1.proj": "int(bits=4, group=64)", "head": "keep()"}
RESULT = {
    "model": "some/<model>",
    "budget": {"asked": "4 bits/weight"},
    "spent": {"bytes": 123456, "bits_per_weight": 3.9876},
    "loss_before": 3.5,
    "loss_after": 3.51,
    "damage_predicted": 0.0123,
    "damage_error": 0.0011,
    "damage_measured": 0.0101,
    "damage_measured_error": 0.0007,
    "kl": 0.0087,
    "kl_error": 0.0002,
    "agreement": 0.951,
    "seconds": 61.0,
    "peak_rss_bytes": 512e6,
    "coverage": 0.998,
    "skipped": [{"unit": "norm", "reason": "a vector & small"}],
    "export": {"verified_in": "transformers 5.23.0", "logit_error": 1.2e-6},
    "edits": EDITS,
}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "secateur.json").write_text(json.dumps(RESULT))
    return folder


def small_menu() -> Menu:
    units = tuple(Unit(name, "linear", (Matrix(f"{name}.weight", 64, 64, name),), 0) for name in EDITS)
    edits = tuple(parse(edit) for edit in EDITS.values())
    payload = np.array([[64 * 64 * bits / 8 for bits in (2.25, 4.25, 16.0)]] * 3)
    damage = np.array([[0.1, 0.01, 0.0]] * 3)
    fixed = {"payload": 0.0, "bytes": 0.0}
    return Menu(units, edits, {"payload": payload, "bytes": payload}, damage, damage / 10, fixed, 3 * 64 * 64)


def drawings(page: str) -> list[ElementTree.Element]:
    """The page's pictures, as XML once the attributes are quoted."""
    quoted = re.sub(r"=([\w-]+)(?=[\s/>])", r'="\1"', page)
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", quoted, re.DOTALL)]


def test_every_figure_is_on_the_page(out):
    page = report(out).read_text()
    for word in ("123,456", "3.988", "3.5000", "3.5100", "0.0123 &plusmn; 0.0011", "0.0101 &plusmn; 0.0007", "95.1%"):
        assert word in page, word
    assert "Seen to load in transformers 5.23.0: no logit differs by more than 1.2e-06." in page
    assert "a vector &amp; small" in page
    assert all(unit in page and edit in page for unit, edit in EDITS.items())


def test_nothing_comes_from_outside_and_names_are_only_names(out):
    page = report(out).read_text()
    assert "<model>" not in page
    assert "&lt;model&gt;" in page
    assert "http" not in page
    assert "<script" not in page


def test_without_a_menu_columns_have_the_bits_of_their_names(out):
    (columns,) = drawings(report(out).read_text())
    heights = [float(rect.get("height")) for rect in columns.iter("rect")]
    assert heights == pytest.approx([180 * 2 / 16, 180 * 4 / 16, 180], abs=0.1)


@pytest.mark.parametrize("place", ["menu", "../menu"])
def test_with_a_menu_columns_have_their_price_and_other_budgets_are_drawn(out, place):
    save_menu(small_menu(), out / place)
    columns, curve = drawings(report(out).read_text())
    heights = [float(rect.get("height")) for rect in columns.iter("rect")]
    assert heights == pytest.approx([180 * 2.25 / 16, 180 * 4.25 / 16, 180], abs=0.1)
    line = next(iter(curve.iter("polyline"))).get("points").split()
    ys = [float(point.split(",")[1]) for point in line]
    assert ys == sorted(ys)  # more bits, less damage: the line goes down the page
    assert len(list(curve.iter("circle"))) == 1


def test_a_menu_of_another_model_is_left_alone(out):
    menu = small_menu()
    other = Menu(
        menu.units[:2], menu.edits, {k: v[:2] for k, v in menu.cost.items()}, menu.damage[:2], menu.error[:2], {}, 8192
    )
    save_menu(other, out.parent / "menu")
    assert len(drawings(report(out).read_text())) == 1


def test_what_is_no_finished_cut(tmp_path):
    with pytest.raises(PlanError, match="there is no finished cut"):
        report(tmp_path)
    (tmp_path / "secateur.json").write_text('{"budget": 4}')
    with pytest.raises(PlanError, match="cannot read"):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()
