"""`secateur measure` as a process."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def said(secateur, tiny, text):
    """What it says of two models, as JSON."""
    models = [tiny(), tiny(seed=1)]
    result = secateur("measure", *models, "--data", text, "--against", tiny(), "--seq-len", 32, "--json")
    assert result.returncode == 0, result.stderr
    return result


def test_one_json_object_with_a_row_a_model(said, tiny):
    found = json.loads(said.stdout)
    assert [row["model"] for row in found["rows"]] == [str(tiny()), str(tiny(seed=1))]
    same, other = found["rows"]
    assert same["kl"] == 0 and same["agreement"] == 1
    assert other["kl"] > 0.01
    for row in found["rows"]:
        assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))
        assert row["tokens"] == 6 * 31
        assert row["bits_per_weight"] == 32
        assert row["bytes"] > 0 and row["seconds"] > 0
    assert found["seq_len"] == 32 and found["windows"] == 6


def test_chatter_goes_to_stderr_and_ends_with_the_line_to_do_it_again(said):
    lines = said.stderr.strip().splitlines()
    assert lines[0].startswith("measuring ")
    assert lines[-1].startswith("again: secateur measure ")


def test_the_table_tells_what_must_be_known(secateur, tiny, text, tmp_path):
    tiny.save(tmp_path / "one")
    tiny.save(tmp_path / "other", seed=1, words=[f"w{at}" for at in reversed(range(63))])
    how = ("--seq-len", 16, "--stride", 8, "--samples", 4)
    result = secateur("measure", "one", "other", "-d", text, *how, cwd=tmp_path, COLUMNS="200")
    assert result.returncode == 0, result.stderr
    assert "bits per byte" in result.stdout.splitlines()[-1]
    figures = ("loss", "perplexity", "bits per byte ", "bits per weight", "32.000")
    assert all(figure in result.stdout for figure in figures), result.stdout
    assert "other: its tokens are not those of one: compare bits per byte, not loss; no KL" in result.stdout


def test_tasks_without_the_harness(secateur, tiny, text, tmp_path):
    (tmp_path / "lm_eval.py").write_text("raise ImportError('not on this machine')\n")
    path = f"{tmp_path}{os.pathsep}{ROOT / 'src'}"
    result = secateur("measure", tiny(), "-d", text, "--tasks", "arc_easy,piqa", PYTHONPATH=path)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1] == "hint: pip install 'secateur[eval]'"
    assert "not on this machine" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("--seq-len", 65), "longer than the context of", "--seq-len 64"),
        (("--seq-len", 32, "--stride", 33), "a stride of 33 does not fit", "--stride 1 to 32"),
        (("--device", "toaster"), "there is no device `toaster` here", "--device cpu"),
    ],
)
def test_what_the_user_can_mend(secateur, tiny, text, options, message, hint):
    result = secateur("measure", tiny(), "-d", text, *options)
    assert result.returncode == 2
    assert message in result.stderr
    assert hint in result.stderr.strip().splitlines()[-1]
    assert result.stdout == ""
