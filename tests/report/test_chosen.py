"""What was kept and what was dropped: the page says what the selection says, and can be walked in a browser."""

from __future__ import annotations

import json
import re
import runpy
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import secateur
from secateur.methods.data.dendromap import Tree, tree
from secateur.parts.eyes import Seen
from secateur.parts.select import Chosen
from secateur.report.chosen import MOST, draw, mapped
from secateur.report.examples import picture

BROWSER = runpy.run_path(str(Path(__file__).with_name("browser.py")))
FAMILIES = runpy.run_path(str(Path(__file__).parents[1] / "front_door" / "conftest.py"))


class Shelf:
    """Examples that are shown by their numbers."""

    def shown(self, at: torch.Tensor) -> tuple[list[str], list[str]]:
        return [f"number {i} <b>of</b> many" for i in at.tolist()], []


def laid(n: int):
    """n examples of four kinds, of the last of which half were kept."""
    kinds = torch.arange(n) % 4
    vectors = torch.eye(5)[kinds] * 3 + torch.randn(n, 5, generator=torch.Generator().manual_seed(0)) * 0.1
    kept = (kinds == 3) & (torch.arange(n) % 8 == 3)
    at = kept.nonzero()[:, 0]
    seen = Seen(torch.arange(n), vectors, {"loss": kinds.float(), "tokens": torch.full((n,), 7)})
    chosen = Chosen(at, kinds.float() / 10, "likeness")
    return kinds, kept, mapped(Shelf(), seen, chosen, kept, "row")


def test_every_example_counts_where_it_lies():
    kinds, kept, found = laid(2 * MOST + 500)
    assert found.examples.tree.n == MOST and found.examples.tree.counts[found.examples.tree.root] == 2500
    clusters = found.told()
    assert sum(one["count"] for one in clusters) == 2500 and sum(one["kept"] for one in clusters) == int(kept.sum())
    assert [one["share"] for one in clusters] == sorted((one["share"] for one in clusters), reverse=True)
    for group, one in enumerate(clusters):
        mine = found.groups == group
        assert int(mine.sum()) == one["count"] and int(kept[mine].sum()) == one["kept"]
        assert len(kinds[mine].unique()) == 1, "like beside like"
    names = [one.name for one in found.examples.colours]
    assert names == ["kept", "loss", "likeness"], "tokens are no colour"
    means = found.examples.tree.means(found.examples.colours[1].values)
    assert means[found.examples.tree.root] == pytest.approx(1.5)


def test_one_that_stands_for_several_weighs_as_many():
    made = tree(np.array([[0.0], [1.0], [10.0]]))
    heavy = Tree(made.children, made.distance, (3, 1, 6))
    assert heavy.counts[heavy.root] == 10 and heavy.n == 3 and made.counts[made.root] == 3
    assert heavy.means([1.0, 5.0, 0.5])[heavy.root] == pytest.approx((3 + 5 + 3) / 10)
    areas = heavy.areas(heavy.visible(3), 10.0, 10.0)
    assert {node: round(w * h, 6) for node, (_, _, w, h) in areas.items() if node < 3} == {0: 30, 1: 10, 2: 60}


def test_the_page_says_it_in_words_and_names_stay_text():
    _, kept, found = laid(80)
    told = {"model": "m", "data": "a/<pool>.csv", "target": "mine", "method": "simcore(stop=False)", "each": "row"}
    told |= {"of": 80, "in_the_file": 90, "taken": "rows", "keep": {"asked": "12%", "unit": "examples", "most": 10}}
    told |= {"used": {"examples": int(kept.sum()), "tokens": 70}, "charged": {"forward": 86.0}, "about": {}}
    told |= {"means": {"tokens": {"kept": 7.0, "all": 7.0}, "loss": {"kept": 3.0, "all": 1.5}}, "file": "out/p.csv"}
    said = draw({**told, "again": "secateur select m"}, found)
    assert "<h1>&lt;pool&gt;.csv: 10 of 80 rows kept</h1>" in said and "<b>of</b>" not in said.partition("<script")[0]
    assert "10.0% of 560" not in said and "12.5% of 560" in said, "tokens kept of all"
    assert re.search(r"Most was kept of a cluster of \d+: \d+ of them", said)
    assert "Nothing was kept of" in said and "2303.11101" in said and "2205.06935" in said
    drawn = picture(found.examples, "")
    assert 'class="chosen"' in drawn and "clusters of rows" in drawn


@pytest.mark.skipif(BROWSER["path"]() is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM")
def test_in_a_browser_one_sees_what_was_kept(tmp_path, monkeypatch):
    model = FAMILIES["save"]("llama", "float32", {"max_position_embeddings": 64}, tmp_path / "m")
    words = FAMILIES["WORDS"].split()
    rows = [" ".join(words[(at * step) % len(words)] for step in range(1, 9)) for at in range(120)]
    (tmp_path / "pool.jsonl").write_text(
        "".join(json.dumps({"text": f"{row} </script><b>{at}</b>"}) + "\n" for at, row in enumerate(rows))
    )
    told = secateur.select(str(model), tmp_path / "pool.jsonl", "25%", method="entropy", out=tmp_path / "text")
    draw_ = np.random.default_rng(0)
    np.savez(tmp_path / "pool.npz", images=draw_.integers(0, 255, (200, 8, 8, 3)).astype(np.uint8))
    (tmp_path / "shown_net.py").write_text(
        "from torch import nn\ndef make():\n    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))\n"
        '    net.preprocessing = {"shape": (3, 8, 8)}\n    return net\n'
    )
    monkeypatch.chdir(tmp_path)
    secateur.select("shown_net:make", tmp_path / "pool.npz", 50, out=tmp_path / "pictures")
    home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # the browser may write on as it goes
    with home as place, BROWSER["browser"](Path(place) / "browser") as page:
        for wide, dark in ((390, True), (1280, False)):
            page.look(wide, 800, dark=dark, phone=wide < 500)
            page.go(tmp_path / "text" / "report.html")
            assert page.ask("document.documentElement.scrollWidth") == wide
        tiles = "[...document.querySelectorAll('#lost button')]"
        counts = page.ask(f"{tiles}.map(one => parseInt(one.getAttribute('aria-label')) || 1)")
        assert sum(counts) == 120
        kept = page.ask(f"{tiles}.map(one => parseFloat(one.getAttribute('aria-label').match(/kept ([\\d.]+)%/)[1]))")
        total = sum(n * share / 100 for n, share in zip(counts, kept, strict=True))
        assert total == pytest.approx(told["used"]["examples"], abs=0.5), "the map adds up to what was kept"
        colours = f"{tiles}.map(one => one.style.backgroundColor)"
        first = page.ask(colours)
        assert page.ask("document.getElementById('lost-scale').textContent").startswith("0.0%")
        page.ask("document.getElementById('lost-1').click()")
        assert page.ask(colours) != first
        page.ask(f"{tiles}[0].focus()")
        for _ in range(9):
            if page.ask(f"{tiles}.length") == 1:
                break
            page.press("Enter")
        label = page.ask(f"{tiles}[0].getAttribute('aria-label')")
        assert label.startswith("one row: kept ") and page.ask(f"{tiles}[0].textContent").count("</script><b>") == 1
        page.press("Escape")
        assert page.ask(f"{tiles}.length") > 1
        page.go(tmp_path / "pictures" / "report.html")
        edged, shown = page.ask(
            "[document.querySelectorAll('#lost img.chosen').length, document.querySelectorAll('#lost img').length]"
        )
        assert 0.1 < edged / shown < 0.4
        page.ask("window.given = [], window.give = (blob, name) => given.push(name)")
        page.ask("document.querySelector('.save button').click()")
        assert page.ask("given") == ["kept-and-dropped.svg"]
        assert page.said == []
