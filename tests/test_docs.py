"""The docs do what they say: every command runs as written, every page is on the site, links lead somewhere.

A shell block (```` ```sh ````) is run line by line, page by page, in a folder with a tiny `MODEL`, `text.txt`,
`heldout.txt`, `runs.csv`, a table of small networks, and to choose from a `pool.jsonl` and `mine.txt`. A line with
`# not run by the tests: why` is left out, for the reader to see.
"""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from secateur.measure import llamacpp

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NOT_RUN = "# not run by the tests: "
#: pages whose Python goes on with what their commands have left
BEHIND = ("shapes",)
#: what runs in llama.cpp and nowhere else
IN_LLAMA = ("secateur run out", "--rivals rtn:w8g32,llama.cpp")
FAMILIES = runpy.run_path(str(ROOT / "tests" / "front_door" / "conftest.py"))


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def lines(page: Path) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]


def to_run(page: Path) -> list[str]:
    return [line for line in lines(page) if NOT_RUN not in line]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """What every page takes for granted."""
    folder = tmp_path_factory.mktemp("desk")
    FAMILIES["save"]("llama", "float16", {"max_position_embeddings": 32}, folder / "MODEL")
    words = FAMILIES["WORDS"].split()
    for name, step in (("text.txt", 7), ("heldout.txt", 11)):
        told = [words[(at * step + at // 5) % len(words)] for at in range(4000 if step == 7 else 600)]
        (folder / name).write_text(" ".join(told))
    (folder / "runs.csv").symlink_to(ROOT / "benchmarks" / "law_runs.csv")
    odd = ["12 + 30 = 42", "7 x 8 = 56", "9 - 4 = 5"]
    rows = [
        odd[at % 3] if at % 5 == 0 else " ".join(words[(at * 3 + step) % len(words)] for step in range(7))
        for at in range(60)
    ]
    (folder / "pool.jsonl").write_text(
        "".join(json.dumps({"text": row, "id": at}) + "\n" for at, row in enumerate(rows))
    )
    (folder / "mine.txt").write_text("3 + 4 = 7\n6 x 6 = 36\n20 - 1 = 19\n")
    (folder / "secateur-demo").mkdir()
    (folder / "secateur-demo" / "model").symlink_to(folder / "MODEL")
    (folder / "secateur-demo" / "calibration.txt").symlink_to(folder / "text.txt")
    return folder


@pytest.fixture
def here(desk, tmp_path, monkeypatch) -> Path:
    """A fresh folder with all of that in it."""
    for file in desk.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str, monkeypatch, capsys) -> None:
    """A command of ours, in this process: importing torch anew for each would take minutes."""
    from secateur.cli import main

    words = shlex.split(line, comments=True)
    assert words[0].removeprefix(".venv/bin/") == "secateur", f"`{line}` is not ours: say why it is not run"
    monkeypatch.setattr(sys, "argv", words)
    try:
        status = main()
    except SystemExit as done:
        status = done.code
    said = capsys.readouterr()
    assert not status, f"`{line}` ended with {status}: {said.err[-2000:]}"


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=lambda page: page.stem)
def test_commands_run_as_written(page, here, monkeypatch, capsys):
    if llamacpp.folder() is None and any(word in line for line in to_run(page) for word in IN_LLAMA):
        pytest.skip(f"no llama.cpp here: {llamacpp.GET}")
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
        (here / "recipe.yaml").write_text(block)
    if "out" in " ".join(to_run(page)) and not re.search(r"-o out\b", " ".join(to_run(page))):
        run('secateur cut MODEL --data text.txt --budget "5 bits/weight" -o out', monkeypatch, capsys)
    for line in to_run(page):
        run(line, monkeypatch, capsys)
    for block in blocks(page, "python") if page.stem in BEHIND else ():
        exec(compile(block, str(page), "exec"), {})
        assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "tour.md"], ids=lambda page: page.stem)
def test_python_runs_as_written(page, here, capsys):
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})
    assert "nats per token" in capsys.readouterr().out


def test_what_is_not_run_says_why():
    left = [line for page in PAGES for line in lines(page) if line not in to_run(page)]
    assert all(line.partition(NOT_RUN)[2].strip() for line in left)
    assert len(left) < sum(len(to_run(page)) for page in PAGES)


def test_no_command_hides_in_a_block_without_a_name():
    hidden = [
        f"{page.name}: {line}"
        for page in PAGES
        for block in blocks(page, "")
        for line in block.splitlines()
        if line.startswith(("secateur ", ".venv/bin/secateur ", "$ secateur"))
    ]
    assert not hidden, f"commands stand in ```sh blocks, so that they are run: {hidden}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in link and not (page.parent / link).exists():
            made = ROOT / "docs" in page.parents and re.search(r"(^|/)(methods|formats|reference)/", link)
            assert made, f"{page.name}: nothing at {link}"


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="no mkdocs here: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    around = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in ("index.html", "tour.html", "methods/gptq.html", "formats/packed.html", "reference/commands.html"):
        assert (tmp_path / "site" / path).stat().st_size > 1000, path
    gptq = (tmp_path / "site" / "methods" / "gptq.html").read_text(encoding="utf-8")
    assert "In a recipe" in gptq and "arxiv.org/abs/2210.17323" in gptq and "holds" in gptq
    commands = (tmp_path / "site" / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "secateur cut" in commands and "--allocate" in commands
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', gptq)
    assert not [one for one in loaded if "canonical" not in one], "nothing is loaded from elsewhere"
