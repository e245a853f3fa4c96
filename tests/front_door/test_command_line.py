"""The command line as a user meets it: a process, its two streams and its exit code."""

import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from secateur import cli, recipe

COMMANDS = list(cli.commands())
MORE = ["bench", "draw", "imatrix", "law", "run", "select", "train"]
CONTRACT = ["inspect", "survey", "plan", "apply", "cut", "measure", "export", "report", "methods", "doctor", "demo"]


def said(result, code: int) -> str:
    """What it said on stderr, after the exit code was the right one and no traceback was shown."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_every_command_of_the_contract_is_there():
    assert sorted(COMMANDS) == sorted(CONTRACT + MORE)


@pytest.mark.parametrize(
    "words", [(), *[(name,) for name in COMMANDS]], ids=lambda words: " ".join(words) or "secateur"
)
def test_help_comes_at_once(secateur, words):
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = secateur(*words, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "Usage: secateur" in result.stdout
        assert said(result, 0) == ""
    # half a second on a quiet machine (docs/log.md has the figures); processor seconds, since a busy one makes us wait
    assert statistics.median(took) < 1.0


@pytest.mark.parametrize("name", ["cut", "measure", "methods"])
def test_help_imports_nothing_heavy(name):
    code = (
        f"import sys; sys.argv = ['secateur', '{name}', '--help']\n"
        "from secateur.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_seed_device_and_json(name):
    options = {option for parameter in cli.load(name).params for option in parameter.opts}
    assert {"--seed", "--device", "--json"} <= options


@pytest.mark.parametrize("command", recipe.KEYS)
def test_a_recipe_has_the_options_of_its_command_as_its_keys(command):
    options = {parameter.name for parameter in cli.load(command).params}
    assert set(recipe.KEYS[command]) == options - {"model", "recipe", "fresh", "as_json", "help"}


def test_without_a_word_it_shows_the_help(secateur):
    result = secateur()
    assert said(result, 0) == ""
    assert all(name in result.stdout for name in COMMANDS)


def test_the_version(secateur):
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", secateur("--version").stdout)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("ctu",), "No such command 'ctu'", "did you mean `secateur cut`?"),
        (("zzz",), "No such command 'zzz'", "`secateur --help` lists the commands"),
        (("cut",), "Missing argument", "`secateur cut --help`"),
        (("cut", "m", "--samples", "many"), "--samples", "`secateur cut --help`"),
        (("cut", "m", "--bugdet", "4"), "No such option", "`secateur cut --help`"),
        (("cut", "m"), "missing --data and --budget and --out", "--budget"),
        (("cut", "m", "--pin", "no-equals-sign"), "cannot read `--pin no-equals-sign`", "int(bits=4, group=64)"),
        (("methods", "no-such-method"), "there is no method `no-such-method`", "secateur methods"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_the_user_can_mend_ends_with_a_hint(secateur, words, message, hint):
    result = secateur(*words)
    lines = said(result, 2).strip().splitlines()
    assert message in " ".join(lines)
    assert lines[-1].startswith("hint: ")
    assert hint in lines[-1]
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["inspect", "measure"])
def test_a_model_that_is_not_there(secateur, tmp_path, name):
    data = tmp_path / "text.txt"
    data.write_text("word " * 1000)
    words = ("--data", data) if name == "measure" else ()
    result = secateur(name, tmp_path / "nothing", *words)
    assert "hint: " in said(result, 2)
    assert "nothing" in result.stderr


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("bugdet: 4 bits/weight", "unknown key `bugdet`", "did you mean `budget`?"),
        ("samples: many", "should be a whole number", "quote"),
        ("keep: {a: b}", "should be a pattern", "quote"),
        ("- budget", "holds no options", "budget"),
        ("budget: 4: 5", "line 1: mapping values", "key: value"),
        ("budget: !!python/object/apply:os.system [true]", "could not determine a constructor", "key: value"),
    ],
)
def test_a_recipe_that_cannot_be_read(secateur, tmp_path, text, message, hint):
    file = tmp_path / "recipe.yaml"
    file.write_text(text + "\n")
    words = said(secateur("cut", "m", "--recipe", file), 2)
    assert message in words
    assert hint in words


def test_a_recipe_that_is_not_there(secateur, tmp_path):
    assert "cannot read the recipe" in said(secateur("cut", "m", "--recipe", tmp_path / "none.yaml"), 2)


def test_the_command_line_wins_over_the_recipe(secateur, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("data: text.txt\nbudget: 2 bits/weight\nsamples: 7\nformat: compressed-tensors\nout: elsewhere\n")
    result = secateur(
        "cut", tmp_path / "nothing", "--recipe", file, "-b", "3 bits/weight", "--samples", "128", "-o", "x"
    )
    first = said(result, 2).splitlines()[0]
    assert "to 3 bits/weight" in first
    assert "128 samples of text.txt" in first  # said on the command line, though it is the default
    assert first.endswith("goes to x")


def test_methods_as_json(secateur):
    result = secateur("methods", "--json")
    assert said(result, 0).strip() == "again: secateur methods --json"
    listed = json.loads(result.stdout)["methods"]
    files = [file for file in (Path(cli.__file__).parents[1] / "methods").rglob("*.py") if file.name[0] != "_"]
    assert len(listed) == len(files)
    assert all(method["sentence"] and method["paper"] for method in listed)


def test_one_method_in_full(secateur):
    name = json.loads(secateur("methods", "--json").stdout)["methods"][0]["name"]
    found = json.loads(secateur("methods", name.replace("-", "_"), "--json").stdout)
    assert found["name"] == name
    assert found["paper"] in " ".join(secateur("methods", name, COLUMNS="400").stdout.split())


def test_doctor_as_json(secateur):
    result = secateur("doctor", "--json")
    said(result, 0)
    found = json.loads(result.stdout)
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["disk_free_bytes"] > 0
    runtimes = {runtime["name"]: runtime for runtime in found["runtimes"]}
    assert runtimes["transformers"]["version"]
    assert all(runtime["version"] or runtime["get"] for runtime in runtimes.values())
    assert {"vllm", "onnxruntime", "llama.cpp", "lm-eval", "compressed-tensors"} <= set(runtimes)
    assert all(check["holds"] in (True, False) for check in found["checks"]), found["checks"]


def test_the_last_line_does_it_again(secateur):
    result = secateur("methods", "--wing", "quantize")
    assert result.stderr.splitlines()[-1] == "again: secateur methods --wing quantize"


def test_no_colour_where_none_is_wanted(secateur):
    plain = secateur("methods", NO_COLOR="1", FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[3" not in plain.stdout + plain.stderr


@pytest.mark.parametrize("words", ["methods", "methods --json"])
def test_a_reader_that_leaves_early_is_no_fault(words):
    command = f"{sys.executable} -m secateur {words} | true; echo ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env, check=True)
    assert result.stdout.strip() == "0"
    assert "Traceback" not in result.stderr
    assert "Broken" not in result.stderr


def test_an_interrupted_run_says_what_is_safe_and_takes_no_time_to_stop(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    command = [sys.executable, "-m", "secateur", "demo", "-o", str(tmp_path / "demo")]
    how: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a suite in the background of a shell hears none
    with subprocess.Popen(command, preexec_fn=heard, **how) as run:
        begun = tmp_path / "demo" / "heldout.txt"
        for _ in range(1200):
            if begun.exists() or run.poll() is not None:
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("stopped; the files in ")
    assert out == ""
    assert not (tmp_path / "demo" / "model").exists()
