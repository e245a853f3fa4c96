"""The report: every figure is on it, nothing comes from outside, names cannot break it, half a run has one, too."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from secateur.cut import plan
from secateur.parts.edits import parse
from secateur.parts.menus import save_menu, save_plan
from secateur.report import figures, report
from secateur.report.pictures import COLUMNS, Row, agreement, depth
from secateur.report.tables import LISTED
from secateur.types import Matrix, Menu, Plan, PlanError, Unit

EDITS = ("int(bits=2, group=64)", "int(bits=4, group=64)", "keep()")
CHOSEN = {"layers.0.<b>proj": EDITS[0], "layers.1.proj": EDITS[1], "head": EDITS[2]}
RESULT = {
    "model": "some/<model>",
    "budget": {"asked": "8 bits/weight & more", "bits_per_weight": 8.0},
    "spent": {"bytes": 123456, "bits_per_weight": 7.4321},
    "loss_before": 3.5,
    "loss_after": 3.51,
    "damage_predicted": 0.22,
    "damage_error": 0.011,
    "damage_measured": 0.0101,
    "damage_measured_error": 0.0007,
    "damage_floor": 0.2,
    "kl": 0.0087,
    "kl_error": 0.0002,
    "agreement": 0.951,
    "seconds": 61.0,
    "peak_rss_bytes": 512e6,
    "coverage": 0.998,
    "skipped": [{"unit": "norm", "reason": "a vector & small"}],
    "bad_rows": [{"unit": "layers.1.proj", "rows": [3, 5]}],
    "export": {
        "format": "packed",
        "files": ["model.safetensors"],
        "bytes_on_disk": 123456,
        "verified_in": "transformers 5.23.0",
        "logit_error": 1.2e-6,
    },
    "edits": CHOSEN,
    "again": "secateur cut 'some/<model>' --budget '8 bits/weight'",
}


class Reader(HTMLParser):
    """Every element opened and closed in order; the words, the attributes, and the pictures' shapes."""

    VOID = frozenset({"meta", "br", "hr", "input"})

    def __init__(self, page: str):
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def every(self, tag: str, dress: str = "") -> list[dict]:
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and (not dress or dress in (attrs.get("class") or "").split())
        ]


def read(page) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


def small_menu(names=tuple(CHOSEN)) -> Menu:
    kinds = ["linear"] * (len(names) - 1) + ["head"]
    units = tuple(
        Unit(name, kind, (Matrix(f"{name}.weight", 64, 64, name),), None if kind == "head" else at)
        for at, (name, kind) in enumerate(zip(names, kinds, strict=True))
    )
    payload = np.array([[64 * 64 * bits / 8 for bits in (2.25, 4.25, 16.0)]] * len(names))
    damage = np.array([[0.1, 0.01, 0.0]] * len(names))
    fixed, about = {"payload": 0.0, "bytes": 0.0}, {"model": "some/<model>", "data": "text.txt", "samples": 7}
    cost = {"payload": payload, "bytes": payload + 100}
    edits = tuple(map(parse, EDITS))
    return Menu(units, edits, cost, damage, damage / 10, fixed, len(names) * 64 * 64, {}, about)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "secateur.json").write_text(json.dumps(RESULT))
    return folder


def test_every_figure_is_on_the_page(out):
    save_menu(small_menu(), out / "menu")
    text = read(report(out)).text
    for word in (
        "some/<model> →",
        "cut to 8 bits/weight & more",
        "7.432 of 8.000 asked for, 92.9%",
        "123,456",
        "3.5000 → 3.5100",
        "0.2200 ± 0.0110",
        "0.0101 ± 0.00070",
        "0.05 of what was expected",
        "the same first choice 95.1% of the time",
        "1 min 1 s",
        "512 MB of memory",
        "99.8% of the parameter bytes",
        "seen to load in transformers 5.23.0, logits within 1.2e-06",
        "at most 10.00% above the best there is",
        "a vector & small: norm",
        "layers.1.proj (2)",
        "secateur cut 'some/<model>' --budget '8 bits/weight'",
    ):
        assert word in text, word


def test_nothing_comes_from_outside_and_names_are_only_names(out):
    save_menu(small_menu(), out / "menu")
    page = report(out)
    source, read_back = page.read_text(), read(page)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|innerHTML|insertAdjacent", source)
    assert not [tag for tag, attrs in read_back.tags if "src" in attrs or ("href" in attrs and tag != "a")]
    assert "default-src 'none'" in source
    assert {tag for tag, _ in read_back.tags}.isdisjoint({"model", "link", "img", "iframe", "object", "b"})
    assert "layers.0.<b>proj" in read_back.text
    assert any("layers.0.<b>proj" in title for title in read_back.words)
    told = json.loads(source.partition('id="data">')[2].partition("</script>")[0])
    assert told["units"][0][0] == "layers.0.<b>proj" and "<b>" not in source
    assert page.stat().st_size < 100_000


def test_a_machine_without_eyes_is_told_as_much(out):
    save_menu(small_menu(), out / "menu")
    page = read(report(out))
    pictures = [attrs for attrs in page.every("svg") if attrs.get("aria-hidden") != "true"]
    assert len(pictures) == 3 and all(one["role"] == "img" and one["aria-label"] for one in pictures)
    regions = [attrs for _, attrs in page.tags if attrs.get("role") == "region"]
    assert len(regions) == 3 and all(one["tabindex"] == "0" and one["aria-label"] for one in regions)
    assert dict(page.tags)["html"]["lang"] == "en"
    assert "prefers-color-scheme: dark" in page_style(out)


def page_style(out) -> str:
    return (out / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]


@pytest.mark.parametrize("place", ["menu", "../menu"])
def test_columns_are_as_tall_as_their_price_and_other_budgets_are_drawn(out, place):
    save_menu(small_menu(), out / place)
    page = read(report(out))
    tall = [float(rect["height"]) for rect in page.every("rect") if "x" in rect]
    assert [rect["data-u"] for rect in page.every("rect") if "x" in rect] == ["0", "1", "2"]
    assert tall[1] / tall[0] == pytest.approx(4.25 / 2.25, rel=0.01)
    assert tall[2] > tall[1] and len(page.every("rect", "kept")) == 1
    line = [point.split(",") for point in page.every("polyline")[0]["points"].split()]
    assert [float(x) for x, _ in line] == sorted(float(x) for x, _ in line)
    assert [float(y) for _, y in line] == sorted(float(y) for _, y in line), "more bits, less damage: down the page"
    inside = [attrs for attrs in page.every("circle", "ours") if "data-at" in attrs]
    assert len(inside) == 1
    assert len(page.every("path", "measured")) == 3  # beside what was expected, in the frontier, and in its key


def test_the_table_adds_up_to_the_file_and_to_what_was_expected(out):
    save_menu(small_menu(), out / "menu")
    page = report(out).read_text()
    body = page.partition('<table class="sorts" id="units">')[2].partition("</table>")[0]
    rows = re.findall(r'<tr data-u="\d">(<td>.*?)</tr>', body)
    assert len(rows) == 3
    cells = [re.findall(r'data-v="([^"]*)"', row) for row in rows]  # block, weights, bits, bytes, damage
    assert [float(row[-3]) for row in cells] == [2.25, 4.25, 16.0]
    assert sum(float(row[-2]) for row in cells) == 64 * 64 * (2.25 + 4.25 + 16) / 8 + 300
    assert sum(float(row[-1]) for row in cells) == pytest.approx(RESULT["damage_predicted"])


def known(page) -> dict:
    """What the page's script is told."""
    return json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0])


def test_the_slider_has_a_plan_for_every_budget_and_the_run_among_them(out):
    menu = small_menu()
    save_menu(menu, out / "menu")
    told = known(report(out))
    plans, edits = told["plans"], told["edits"]
    bits = [plan["spent"]["bits_per_weight"] for plan in plans]
    assert bits == sorted(bits)
    assert [edits[e] for e in plans[told["ours"]]["choice"]] == list(CHOSEN.values())
    assert bits[0] == 2.25 and bits[-1] == pytest.approx(RESULT["spent"]["bits_per_weight"])
    add_up(told, plans[:-1])
    assert told["before"] == [[64 * 64 * 2 + 100]] * 3
    assert told["units"][1] == ["layers.1.proj", "linear", 1, 4096, [["layers.1.proj.weight", 64, 64]]]


def add_up(told: dict, plans: list[dict]) -> None:
    """Every plan's units cost and damage what is told of it, and its budget, asked for again, gives as much."""
    for one in plans:
        prices = told["prices"][one["prices"]]
        spent = sum(prices["bytes"][u][e] for u, e in enumerate(one["choice"]))
        assert spent + prices["fixed"] == one["spent"]["bytes"]
        assert sum(prices["damage"][u][e] for u, e in enumerate(one["choice"])) == pytest.approx(one["damage"])
        assert one["floor"] <= one["damage"]


def flops_menu() -> Menu:
    """Three units with fewer FLOPs the fewer bits they have, and the same network with a narrower trunk: all its FLOPs
    and bytes are halved, and that damages by itself."""
    menu = small_menu()
    plain = replace(
        menu, cost={**menu.cost, "flops": np.array([[1e6, 2e6, 4e6]] * 3)}, fixed={**menu.fixed, "flops": 5e5}
    )
    rows, edits = (*plain.units, Unit("trunks", "trunks", (), 0)), (*plain.edits, parse("trunks('8')"))
    wide = {name: np.full((4, 4), np.inf) for name in (*plain.cost, "damage", "error")}
    for name, table in {**plain.cost, "damage": plain.damage, "error": plain.error}.items():
        wide[name][:-1, :-1], wide[name][-1, 2] = table, 0.0
    narrow = {name: table.copy() / (2 if name in plain.cost else 1) for name, table in wide.items()}
    for name, table in narrow.items():
        table[-1, 2:] = (np.inf, 0.05 if name == "damage" else 0.0)
    whole, thin = (
        replace(plain, units=rows, edits=edits, damage=t.pop("damage"), error=t.pop("error"), cost=t)
        for t in (wide, narrow)
    )
    return replace(whole, narrower=(thin,))


def test_the_resource_that_was_asked_for_comes_first(out):
    """FLOPs under a cap on bytes, on a network whose trunk may be narrower, which every price hangs on."""
    menu = flops_menu()
    save_menu(menu, out / "menu")
    (made,) = plan(menu, ["60% flops, 24 kB"])
    budget = {"asked": "60% flops, 24 kB", "bytes": 24000.0, "flops": 7.5e6}
    edits = {unit: str(edit) for unit, edit in made.edits.items()}
    result = {"budget": budget, "spent": dict(made.spent), "edits": edits, "damage_predicted": made.damage}
    page = report(out, RESULT | result)
    told, text = known(page), read(page).text
    plans = told["plans"]
    assert told["by"] == "flops" and len({one["prices"] for one in plans}) == 2, "both menus are on the slider"
    add_up(told, [one for at, one in enumerate(plans) if at != told["ours"]])
    flops = [one["spent"]["flops"] for one in plans]
    assert flops == sorted(flops) and flops[0] < 0.2 * 12.5e6 and all(one["spent"]["bytes"] <= 24000 for one in plans)
    for one in plans:
        (again,) = plan(menu, [one["asked"]])
        assert again.spent["flops"] == one["spent"]["flops"] and again.damage == pytest.approx(one["damage"])
    assert 0 < text.index("flops") < text.index("bytes") < text.index("bits per weight")
    assert "All of them keep to 24 kB as well." in text and "MFLOPs" in text
    assert 'id="area-by"' in page.read_text()
    drawn = figures(out, out / "figures")
    assert "MFLOPs" in next(file for file in drawn if file.stem == "frontier").read_text()


def test_where_the_bytes_went_adds_up_to_the_file(out):
    save_menu(small_menu(), out / "menu")
    page = report(out).read_text()
    body = page.partition("Where the bytes went")[2].partition("</table>")[0]
    shares = [float(share) for share in re.findall(r'<td class="share" data-v="([^"]*)"><?[^<]*<i', body)]
    assert len(shares) == 3 * 2 and sum(shares[0::2]) == pytest.approx(1, abs=1e-5)
    assert f"{64 * 64 * (2.25 + 4.25 + 16) / 8 + 300:,.0f}" in body


def test_the_papers_that_a_run_stands_on(out):
    text = read(report(out)).text
    assert "Shoham and Gersho" in text and "arXiv 2210.17323" in text and "BAQ" not in text
    plain = RESULT | {"again": "secateur cut m --data t --budget 3 --round nearest --allocate baq -o out"}
    text = read(report(out, plain)).text
    assert "arXiv 2506.05664" in text and "Shoham" not in text and "2210.17323" not in text


def test_low_ranks_for_the_cache_are_cskv_s_and_for_flops_nobody_s(out):
    ranked = {"edits": CHOSEN | {next(iter(CHOSEN)): "rank(keep=0.5)"}}
    (out / "plan.yaml").unlink(missing_ok=True)
    for asked, named in (("50% kv, 3 MB", True), ("50% flops, 3 MB", False)):
        text = read(report(out, RESULT | ranked | {"budget": RESULT["budget"] | {"asked": asked}})).text
        assert ("arXiv 2409.10593" in text) == named
    assert "2409.10593" not in read(report(out, RESULT | {"budget": RESULT["budget"] | {"asked": "50% kv"}})).text


def test_the_command_comes_as_a_recipe_too(out):
    text = read(report(out, RESULT | {"again": "secateur cut m --data 't x.txt' --budget '3 bits/weight' -o o"})).text
    assert "data: t x.txt budget: 3 bits/weight out: o" in text
    assert "as a recipe" not in read(report(out, RESULT | {"again": "secateur cut 'm"})).text


def test_a_measured_damage_below_zero_is_said_and_not_drawn(out):
    save_menu(small_menu(), out / "menu")
    (out / "secateur.json").write_text(json.dumps(RESULT | {"damage_measured": -0.001}))
    page = read(report(out))
    assert len(page.every("path", "measured")) == 2
    assert "below zero, so not in the picture" in page.text


def test_without_a_menu_there_is_what_the_edits_say(out):
    page = read(report(out))
    tall = [float(rect["height"]) for rect in page.every("rect") if "x" in rect]
    assert tall[1] == pytest.approx(2 * tall[0], rel=0.01)
    assert "What other budgets would cost" not in page.text
    assert all(unit in page.text for unit in CHOSEN)


def test_a_menu_of_another_model_or_a_broken_one_is_left_alone(out):
    save_menu(small_menu(("a", "b")), out.parent / "menu")
    save_menu(small_menu(), out / "menu")
    (out / "menu" / "menu.json").write_text("{")
    assert "What other budgets would cost" not in read(report(out)).text


def test_a_run_that_broke_off_shows_what_it_planned(out):
    menu = small_menu()
    save_menu(menu, out / "menu")
    edits = dict.fromkeys(CHOSEN, parse(EDITS[0]))
    spent = {"bytes": 3756.0, "bits_per_weight": 2.25}
    save_plan(Plan(edits, spent, 0.3, 0.03, 0.3, "3 bits/weight", menu.about), out / "plan.yaml")
    (out / ".work").mkdir()  # secateur.json is of a run before this one
    text = read(report(out)).text
    assert "This run is not finished. What it planned is below." in text
    assert "2.250 of 3.000 asked for" in text
    assert "0.3000 ± 0.0300" in text
    assert "3.5100" not in text
    assert "secateur cut 'some/<model>' --data text.txt --budget '3 bits/weight' --samples 7" in text
    (out / "secateur.json").unlink()
    assert "This run is not finished" in read(report(out)).text


def test_a_survey_that_broke_off(tmp_path):
    (tmp_path / "menu" / ".work").mkdir(parents=True)
    assert "It has not come to a plan." in read(report(tmp_path)).text


def test_a_plan_that_was_not_carried_out_is_not_shown(out):
    menu = small_menu()
    other = Plan(dict.fromkeys(CHOSEN, menu.edits[1]), {}, 0.03, 0.0, 0.03, "5 bits/weight", {"seed": 1})
    save_plan(other, out / "plan.yaml")
    assert "cut to 8 bits/weight & more" in read(report(out)).text


def test_what_the_caller_knows_goes_into_the_record(out):
    report(out, RESULT | {"seconds": 99.0, "again": "secateur demo"})
    assert json.loads((out / "secateur.json").read_text())["seconds"] == 99.0
    assert "secateur demo" in read(out / "report.html").text
    assert "secateur demo" in read(report(out)).text, "and is there the next time"


def test_the_menu_may_lie_anywhere_when_the_record_names_it(out, tmp_path):
    save_menu(small_menu(), tmp_path / "elsewhere")
    assert "What other budgets would cost" in read(report(out, RESULT | {"menu": str(tmp_path / "elsewhere")})).text


def test_ten_thousand_units_stay_below_a_megabyte(out):
    names = [f"model.layers.{at}.mlp.experts.proj" for at in range(10_000)]
    (out / "secateur.json").write_text(json.dumps(RESULT | {"edits": dict.fromkeys(names, EDITS[1])}))
    page = report(out)
    assert page.stat().st_size < 1_000_000
    text = read(page)
    assert f"These are the {LISTED:,} of 10,000" in text.text
    assert len([rect for rect in text.every("rect") if "x" in rect]) <= COLUMNS


def test_neighbours_drawn_as_one_keep_their_area():
    rows = [Row(f"layers.{at}.proj", EDITS[0], "linear", at, 100, 2.0 + at % 3) for at in range(3 * COLUMNS)]
    rects = re.findall(r'width="([\d.]+)" height="([\d.]+)"', depth(rows, None))
    assert len(rects) == COLUMNS
    assert len({height for _, height in rects}) == 1, "2, 3 and 4 bits are 3 on average"


def test_what_is_no_cut(tmp_path):
    with pytest.raises(PlanError, match="there is no cut in"):
        report(tmp_path)
    (tmp_path / "secateur.json").write_text('{"budget": 4}')
    with pytest.raises(PlanError, match="cannot read"):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_nan_and_nothing_are_left_out(out):
    odd = {"damage_predicted": float("nan"), "damage_error": float("nan"), "damage_measured": None, "kl": None}
    page = read(report(out, RESULT | odd))
    assert not re.search(r"\bnan\b", page.text)
    assert "damage expected" not in page.text


def test_units_without_a_block_stand_at_the_ends():
    rows = [Row("head", "keep()", "head", None, 10, 16.0), Row("x.1.q", EDITS[0], "linear", 1, 10, 2.0)]
    rows += [Row("emb", "keep()", "embedding", None, 10, 16.0), replace(rows[1], name="x.0.q", block=0)]
    titles = re.findall(r"<title>([^:]*):", depth(rows, 2.0))
    assert titles == ["emb", "x.0.q", "x.1.q", "head"]


def test_figures_stand_alone(out, tmp_path, secateur):
    save_menu(small_menu(), out / "menu")
    done = secateur("report", out, "--figures", tmp_path / "figures", "--json")
    files = json.loads(done.stdout)["figures"]
    assert [Path(file).stem for file in files] == ["bits-by-depth", "frontier", "predicted-and-measured"]
    for file in files:
        root = ElementTree.parse(file).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and float(root.get("width")) > 0
        style = root.find("{http://www.w3.org/2000/svg}style").text
        assert "var(" not in style and "#2d6a4f" in style


def test_an_image_model_counts_by_examples(out):
    save_menu(small_menu(), out / "menu")
    page = report(out, RESULT | {"accuracy_before": 0.925, "accuracy_after": 0.91})
    text = read(page).text
    assert "92.50% → 91.00%" in text and "nats per example" in text
    assert "per token" not in text and "perplexity" not in text and known(page)["each"] == "example"


@pytest.mark.parametrize("most", [*np.geomspace(1e-6, 50, 40), 0.0])
def test_expected_beside_measured_can_be_drawn_at_every_scale(most):
    drawn = agreement((most, most / 10), (-most / 3, most / 20), most / 2)
    ticks = re.findall(r'text-anchor="middle">([^<]*)<', drawn)
    assert (2 <= len(ticks) <= 8) if most else drawn == ""
    assert [float(tick) for tick in ticks] == sorted({float(tick) for tick in ticks})
    assert agreement(None, (most, most), None) == ""
