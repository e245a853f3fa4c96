"""What surrounds a command: exit codes, what is said of which error, and JSON that is JSON."""

import errno
import json
import sys

import numpy as np
import pytest

from secateur.cli import frame
from secateur.types import BudgetError


def run(body, as_json=False, out=None, resumes=False):
    """The exit code of a command with this body."""
    try:
        with frame.job(as_json, out, resumes) as work:
            body(work)
    except SystemExit as left:
        return left.code
    return 0


def broken(error):
    def body(_):
        raise error

    return body


@pytest.fixture(autouse=True)
def command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["secateur", "cut", "my model", "-o", "out"])


def test_the_users_error(capsys):
    assert run(broken(BudgetError("it does not fit", "ask for more"))) == 2
    assert capsys.readouterr().err == "error: it does not fit\nhint: ask for more\n"


def test_an_error_without_a_hint_still_gets_one(capsys):
    assert run(broken(BudgetError("it does not fit"))) == 2
    assert capsys.readouterr().err.endswith("hint: `secateur cut --help` tells what this command takes\n")


def test_brackets_in_a_message_are_no_markup(capsys):
    run(broken(BudgetError("shape [bold] is not [12, 4]", "see [1]")))
    assert "shape [bold] is not [12, 4]\nhint: see [1]\n" in capsys.readouterr().err


def test_our_own_fault(capsys, tmp_path):
    assert run(broken(ZeroDivisionError("oops")), out=tmp_path, resumes=True) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("Traceback")
    assert "ZeroDivisionError: oops" in lines
    assert lines[-1].startswith("this is a fault in secateur")
    assert lines[-1].endswith("the same command goes on from there")


@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupted_run_says_what_is_safe(capsys, tmp_path, resumes):
    assert run(broken(KeyboardInterrupt()), out=tmp_path, resumes=resumes) == 130
    words = capsys.readouterr().err
    assert words.startswith("stopped; ")
    assert str(tmp_path) in words
    assert ("goes on from there" in words) == resumes


def test_an_interrupted_run_that_had_written_nothing(capsys, tmp_path):
    assert run(broken(KeyboardInterrupt()), out=tmp_path / "none") == 130
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/full/model.safetensors"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_for_the_user(capsys, tmp_path, error):
    assert run(broken(error), out=tmp_path, resumes=True) == 2
    words = capsys.readouterr().err
    assert "the disk is full" in words
    assert "goes on from there" in words
    assert "Traceback" not in words


def test_a_path_that_the_user_gave_is_for_the_user_and_another_is_not(capsys):
    assert run(broken(FileNotFoundError(errno.ENOENT, "No such file or directory", "my model/config.json"))) == 2
    assert "my model/config.json: no such file or directory" in capsys.readouterr().err
    assert run(broken(FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere/config.json"))) == 1


def test_too_little_memory_is_for_the_user(capsys):
    assert run(broken(MemoryError())) == 2
    assert "--samples" in capsys.readouterr().err


def test_a_missing_runtime_says_how_to_get_it(capsys):
    assert run(broken(ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime.capi"))) == 2
    assert "pip install 'secateur[onnx]'" in capsys.readouterr().err
    assert run(broken(ModuleNotFoundError("No module named 'secateur.lost'", name="secateur.lost"))) == 1


def test_the_result_as_json_is_alone_on_stdout(capsys):
    result = {"loss": float("nan"), "cap": np.float32(2.5), "at": np.arange(3), "n": np.int64(7), 4: (True, None)}

    def body(work):
        work.say("on the way")
        work.tell("stage", 1, 1)
        work.give(result, str)

    assert run(body, as_json=True) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out) == {"loss": None, "cap": 2.5, "at": [0, 1, 2], "n": 7, "4": [True, None]}
    assert seen.err.startswith("on the way\nstage: 1/1 in ")
    assert seen.err.endswith("again: secateur cut 'my model' -o out\n")


def test_the_result_is_drawn_where_no_json_is_asked_for(capsys):
    assert run(lambda work: work.give({"n": 7}, lambda result: f"there are {result['n']}")) == 0
    assert capsys.readouterr().out == "there are 7\n"


def test_a_fault_in_the_drawing_is_a_fault(capsys):
    assert run(lambda work: work.give({}, lambda result: result["n"])) == 1
    assert "KeyError" in capsys.readouterr().err
