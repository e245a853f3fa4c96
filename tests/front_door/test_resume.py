"""A run that is killed goes on where it stopped, and ends with the same bytes as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secateur.cut import cut, survey
from secateur.model import parked

SRC = Path(__file__).parents[2] / "src"
BUDGET = "5 bits/weight"


class Crash(BaseException):
    """What no code of ours would catch."""


def crash_at(stage: str, step: int):
    """A `tell` that ends everything at one step of one stage."""

    def tell(now: str, done: int, total: int) -> None:
        if (now, done) == (stage, step):
            raise Crash

    return tell


def file_of(out: Path) -> tuple[bytes, bytes]:
    """What must be the same to the byte."""
    return (out / "model.safetensors").read_bytes(), (out / "config.json").read_bytes()


@pytest.fixture(scope="module")
def deep(tiny):
    return tiny("llama", num_hidden_layers=5)


@pytest.fixture(scope="module")
def unbroken(deep, text, tmp_path_factory, quick):
    out = tmp_path_factory.mktemp("unbroken")
    return out, cut(str(deep), str(text), BUDGET, out=out, **quick)


def test_every_stage_can_be_broken(deep, unbroken, text, tmp_path, quick):
    """One folder, broken again and again, always a little further on."""
    stages = [("forward", 3), ("backward", 1), ("backward", 4), ("backward", 5), ("probes", 2)]
    stages += [("cutting", 0), ("cutting", 2), ("cutting", 5), ("writing", 1)]
    for stage, step in stages:
        with pytest.raises(Crash):
            cut(str(deep), str(text), BUDGET, out=tmp_path, tell=crash_at(stage, step), **quick)
        assert not (tmp_path / "config.json").exists()
        assert not (tmp_path / "model.safetensors").exists()
    result = cut(str(deep), str(text), BUDGET, out=tmp_path, **quick)
    assert result["resumed"]
    assert file_of(tmp_path) == file_of(unbroken[0])
    for key in ("spent", "damage_predicted", "loss_after", "kl", "bad_rows", "export"):
        assert result[key] == unbroken[1][key], key


@pytest.mark.parametrize(("stage", "step"), [("backward", 2), ("cutting", 1)])
def test_states_parked_in_files(deep, unbroken, text, tmp_path, quick, monkeypatch, stage, step):
    """As when there is no room for hidden states in memory: broken and whole, the same bytes."""
    monkeypatch.setattr(parked, "IN_MEMORY", 0)
    with pytest.raises(Crash):
        cut(str(deep), str(text), BUDGET, out=tmp_path, tell=crash_at(stage, step), **quick)
    result = cut(str(deep), str(text), BUDGET, out=tmp_path, **quick)
    assert result["resumed"]
    assert file_of(tmp_path) == file_of(unbroken[0])


def test_what_is_cut_before_the_blocks_is_found_again(tiny, text, tmp_path, quick):
    """A tied matrix is cut first and met again behind the last block."""
    model = tiny("llama-tied")
    whole = cut(str(model), str(text), "5 bits/weight", out=tmp_path / "whole", format="packed", **quick)
    assert whole["edits"]["model.embed_tokens"] != "keep()"
    with pytest.raises(Crash):
        cut(
            str(model),
            str(text),
            "5 bits/weight",
            out=tmp_path / "broken",
            format="packed",
            tell=crash_at("cutting", 1),
            **quick,
        )
    result = cut(str(model), str(text), "5 bits/weight", out=tmp_path / "broken", format="packed", **quick)
    assert result["resumed"]
    assert result["loss_after"] == whole["loss_after"]
    names = [tmp_path / run / "packed.safetensors" for run in ("whole", "broken")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_another_budget_takes_the_menu_as_it_is(unbroken, deep, text, quick):
    out, _ = unbroken
    before = (out / "menu" / "menu.json").read_bytes()
    stages: list[str] = []
    result = cut(
        str(deep), str(text), "6 bits/weight", out=out, tell=lambda stage, done, total: stages.append(stage), **quick
    )
    assert result["resumed"]
    assert set(stages) == {"cutting", "writing"}
    assert 5 < result["spent"]["bits_per_weight"] <= 6
    assert (out / "menu" / "menu.json").read_bytes() == before
    cut(str(deep), str(text), BUDGET, out=out, **quick)  # as the other tests expect it


def test_a_menu_without_its_statistics_is_good_enough(unbroken, deep, text, tmp_path, quick):
    """Whoever has removed them to make room gets the same file, later."""
    import shutil

    shutil.copytree(unbroken[0] / "menu", tmp_path / "menu")
    shutil.rmtree(tmp_path / "menu" / ".work")
    stages: list[str] = []
    cut(str(deep), str(text), BUDGET, out=tmp_path, tell=lambda stage, done, total: stages.append(stage), **quick)
    assert "backward" in stages and "probes" not in stages
    assert file_of(tmp_path) == file_of(unbroken[0])


@pytest.mark.parametrize("other", [{"seed": 1}, {"seq_len": 24}, {"keep": ("*.o_proj",)}, {"resume": False}], ids=str)
def test_work_of_another_job_is_not_taken_up(deep, text, tmp_path, quick, other):
    with pytest.raises(Crash):
        survey(str(deep), str(text), out=tmp_path, tell=crash_at("backward", 5), **quick)
    seen: list[tuple[str, int]] = []
    with pytest.raises(Crash):
        survey(
            str(deep),
            str(text),
            out=tmp_path,
            tell=lambda stage, done, total: seen.append((stage, done)) or crash_at("backward", 0)(stage, done, total),
            **(quick | other),
        )
    assert ("forward", 4) in seen  # all blocks: nothing was taken for finished


def start(words: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-m", "secateur", *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_when(process: subprocess.Popen[str], sign: Path) -> bool:
    """SIGKILL as soon as a file is there; whether it was in time."""
    while process.poll() is None and not sign.exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_kill_9_and_the_same_command_again(deep, unbroken, text, tmp_path):
    out = tmp_path / "out"
    words = ["cut", str(deep), "-d", str(text), "-b", BUDGET, "-o", str(out), "--samples", "12", "--seq-len", "32"]
    signs = [
        out / "menu" / ".work" / "gradient-3",  # in the middle of the survey
        out / ".work" / "parts" / "5.safetensors",  # in the middle of the cutting
        out / ".work" / "export" / "model.safetensors",  # the file is there, and not yet verified
    ]
    killed = [kill_when(start(words), sign) for sign in signs]
    assert all(killed)
    assert not (out / "config.json").exists()
    last = start([*words, "--json"])
    stdout, stderr = last.communicate(timeout=600)
    assert last.returncode == 0, stderr
    assert json.loads(stdout)["resumed"] is True
    assert file_of(out) == file_of(unbroken[0])
    assert not (out / ".work").exists()
