"""Rivals: found by path, called in their interpreters, and whatever they do is told in one sentence."""

import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from secateur.bench import rivals
from secateur.bench.rivals import Rival, RivalError
from secateur.types import SecateurError

#: of a network of forty blocks
MATRICES = [*((256, 512, block) for block in range(40)), (64, 256, None)]


def test_every_file_says_what_its_tool_is():
    for rival in rivals.every({}):
        assert rival.sentence.startswith(f"{rival.name}: ") or rival.name in rival.sentence.lower()
        assert rival.sentence.endswith(".") and rival.get()
        assert all(re.fullmatch(rival.own.SHAPE, setting) for setting in rival.settings)
        sizes = [rival.payload(setting, MATRICES, 1e3) for setting in rival.settings]
        assert sizes == sorted(sizes, reverse=True), f"{rival.name}: from the largest file to the smallest"
        assert sizes[-1] > 1e3 and sizes[0] < 1e3 + (4.2 if rival.pictures else 2.2) * sum(
            r * c for r, c, _ in MATRICES
        )


@pytest.mark.parametrize("words", ["llama.cpp", "llama-cpp:q4_k_m", "LlamaCpp"])
def test_names_are_read_as_people_write_them(words):
    rival, setting = rivals.find(words, {})
    assert rival.name == "llama.cpp" and setting == (words.partition(":")[2] or None)


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("autoronud", "no rival `autoronud`", "did you mean `autoround`?"),
        ("autoround:w5g7", "autoround has no setting `w5g7`", "w4g128"),
    ],
)
def test_what_is_no_rival(words, said, hint):
    with pytest.raises(SecateurError, match=re.escape(said)) as caught:
        rivals.find(words, {})
    assert hint in caught.value.hint


def test_where_a_rival_lives(monkeypatch, tmp_path):
    assert rivals.interpreters([f"auto-round={sys.executable}"]) == {"autoround": sys.executable}
    for words, said in (("autoround", "cannot read"), (f"hqq={tmp_path / 'no'}", "there is no interpreter")):
        with pytest.raises(SecateurError, match=said):
            rivals.interpreters([words])
    monkeypatch.setenv("SECATEUR_RIVAL_HQQ", "/their/python")
    assert rivals.find("hqq", {})[0].python == "/their/python"
    assert rivals.find("hqq", {"hqq": "/said/python"})[0].python == "/said/python", "what is said comes first"
    assert Rival(rivals.HERE / "hqq.py", "/their/python").version() is None
    assert "bin/pip install hqq" in rivals.find("hqq", {})[0].get()


def test_a_version_is_asked_of_its_own_interpreter(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = Rival(rivals.HERE / "rtn.py", str(python)).version()
    assert found == Rival(rivals.HERE / "rtn.py").version()


def test_mergekit_leaves_out_a_run_before_the_last_layer(tmp_path):
    """Sizes are foreseen by depth; of what a network has not, nothing is foreseen, and a run says so."""
    tool = rivals.find("mergekit", {})[0]
    assert [tool.own.gone(f"drop{n}", 8) for n in (1, 2, 7, 8)] == [range(6, 7), range(5, 7), range(7), None]
    matrices = [*((10, 10, block) for block in range(3)), (5, 10, None)]
    assert [tool.payload(f"drop{n}", matrices, 7.0) for n in (1, 2, 3)] == [507.0, 307.0, None]
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 3}')
    how = {"model": tmp_path, "tokens": tmp_path, "device": "cpu", "seed": 0}
    with pytest.raises(RivalError, match="drop3 would leave nothing of a network of 3 layers"):
        rivals.run(Rival(tool.file), "drop3", tmp_path / "out" / "mergekit-drop3", **how)


TOOL = '''"""tool: does as it is told."""
NAME, DISTRIBUTION, FORMAT, SETTINGS, SHAPE = "tool", "numpy", "gguf", ("a",), "a"
def bits(setting, rows, cols):
    return 4.0
def cut(job):
    {body}
'''


def run(tmp_path: Path, body: str, **more):
    file = tmp_path / "tool.py"
    file.write_text(TOOL.format(body=body))
    np.save(tmp_path / "windows.npy", np.arange(6).reshape(2, 3))
    how = {"model": tmp_path, "tokens": tmp_path / "windows.npy", "device": "cpu", "seed": 0, **more}
    return rivals.run(Rival(file), "a", tmp_path / "out" / "tool-a", **how)


def test_a_run_leaves_its_file_and_what_it_took(tmp_path):
    told = run(tmp_path, '(job.packed / "model.gguf").write_text(job.setting); print("words"); return "1.0"')
    assert told["version"] == "1.0" and told["seconds"] >= 0 and told["peak_rss_bytes"] > 0
    assert (tmp_path / "out" / "tool-a" / "packed" / "model.gguf").read_text() == "a"
    assert "words" in (tmp_path / "out" / "tool-a.log").read_text()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('raise ValueError("no such layer")', "ended with 1: ValueError: no such layer"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by signal 11"),
        ('return "1.0"', "left no file"),
    ],
)
def test_a_run_that_fails_says_how_and_where_its_words_are(tmp_path, body, said):
    with pytest.raises(RivalError, match=said) as caught:
        run(tmp_path, body)
    assert str(tmp_path / "out" / "tool-a.log") in caught.value.hint


def test_a_run_that_takes_too_long_is_ended_with_its_workers(tmp_path):
    body = 'import subprocess, time; print(subprocess.Popen(["sleep", "600"]).pid, flush=True); time.sleep(600)'
    with pytest.raises(RivalError, match="took more than 2 seconds"):
        run(tmp_path, body, limit=2)
    worker = int((tmp_path / "out" / "tool-a.log").read_text())
    for _ in range(50):  # the system takes a moment
        if not _alive(worker):
            break
        time.sleep(0.1)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has asked about since it ended does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
