"""What bad input gets: exit code 2, one sentence that says what and where, a hint, and nothing written half."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur import cli
from secateur.cut import apply, cut, plan, survey
from secateur.parts.menus import save_plan
from secateur.types import SecateurError

ENOUGH = ("--samples", "12", "--seq-len", "32")


@pytest.fixture
def command(monkeypatch, capfd):
    """`command("cut", model, ...)` runs the command line in this process: its exit code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["secateur", *map(str, words)])
        capfd.readouterr()
        try:
            code = cli.main()
        except SystemExit as exit:
            code = exit.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def fails(command, tmp_path):
    """`fails(message, hint, "cut", ...)`: it must fail in words, and leave nothing that looks like a result."""

    def run(message: str, hint: str, *words: object) -> str:
        code, out, said = command(*words)
        assert code == 2, said
        assert out == ""
        assert "Traceback" not in said and "Warning" not in said
        *_, error, last = said.strip().splitlines()
        assert error.startswith("error: ") and message in error
        assert last.startswith("hint: ") and hint in last
        left = [file for file in tmp_path.rglob("*") if ".work" not in file.parts]
        assert not [file for file in left if file.name.startswith(".") or file.suffix == ".part"]
        assert not (tmp_path / "out" / "config.json").exists()
        return said

    return run


@pytest.fixture
def copy(tiny, tmp_path):
    """A Llama of one's own, to be damaged."""

    def get(name: str = "llama", **how: object) -> Path:
        return Path(shutil.copytree(tiny(name, **how), tmp_path / "model"))

    return get


def changed(folder: Path, name: str, change) -> Path:
    """Write one tensor of a model anew."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors[name])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def words(model: Path, text: Path, out: Path, budget: str = "5 bits/weight") -> tuple[object, ...]:
    return ("cut", model, "--data", text, "--budget", budget, "-o", out, *ENOUGH)


# the model


def test_not_a_model(fails, text, tmp_path):
    (tmp_path / "empty").mkdir()
    fails("no config.json", "folder that holds config.json", *words(tmp_path / "empty", text, tmp_path / "out"))
    fails("there is no folder", "hub id", *words(tmp_path / "nowhere", text, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_truncated_shard(fails, copy, text, tmp_path):
    file = copy() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    fails("is truncated", "download or copy this file again", *words(file.parent, text, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "tensor", "where"),
    [
        ("llama", "model.layers.1.mlp.down_proj.weight", (3, 5)),
        ("llama", "model.norm.weight", (0,)),
        # weights that no token of the text needs
        ("llama", "model.embed_tokens.weight", (255, 0)),
        ("mixtral", "model.layers.1.mlp.experts.3.down_proj.weight", (0, 0)),
    ],
)
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_nan_and_infinity_are_found_before_the_long_part(
    fails, copy, text, tmp_path, name, tensor, where, value, monkeypatch
):
    folder = copy(name)
    tensor = tensor if name == "llama" else next(n for n in load_file(folder / "model.safetensors") if "experts.3" in n)
    changed(folder, tensor, lambda weights: weights.__setitem__(where, value))
    monkeypatch.setattr("secateur.cut.gathering.backward", lambda *_: pytest.fail("the long part has begun"))
    fails(f"`{tensor}` holds 1 NaN or infinite value of", "damaged", *words(folder, text, tmp_path / "out"))


def test_activations_that_overflow(fails, copy, text, tmp_path):
    folder = copy(dtype="float32")
    changed(folder, "model.layers.0.mlp.down_proj.weight", lambda weights: weights.fill_(3e38))
    said = "the hidden states after model.layers.0 hold NaN or infinity"
    fails(said, "check that the model speaks", *words(folder, text, tmp_path / "out"))


def test_logits_that_overflow(fails, copy, text, tmp_path):
    folder = copy(dtype="float32")
    changed(folder, "lm_head.weight", lambda weights: weights.fill_(3e38))
    fails("the logits hold NaN or infinity", "damaged", *words(folder, text, tmp_path / "out"))


def test_a_model_that_is_cut_already(fails, tiny, text, tmp_path, quick):
    cut(str(tiny("llama")), str(text), "8 bits/weight", out=tmp_path / "once", over="linear", **quick)
    said = "is already quantized (compressed-tensors)"
    fails(said, "secateur export", *words(tmp_path / "once", text, tmp_path / "out"))


def test_out_is_the_model(fails, copy, text, tmp_path):
    folder = copy()
    before = (folder / "model.safetensors").read_bytes()
    code = words(folder, text, folder)
    fails("is the model itself", "another folder", *code)
    assert not (folder / "menu").exists()  # said before the long part, and nothing is left in it
    assert (folder / "model.safetensors").read_bytes() == before
    assert (folder / "config.json").exists()


# the text


def test_forty_tokens(fails, tiny, tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("a tree has a root, a stem and some leaf.")
    said = fails("gives only 40 tokens", "give more text", *words(tiny("llama"), file, tmp_path / "out"))
    assert "need at least 256" in said
    assert not (tmp_path / "out").exists()


def test_no_text(fails, tiny, tmp_path):
    fails("there is no file", "text file", *words(tiny("llama"), tmp_path / "none.txt", tmp_path / "out"))


def test_windows_longer_than_the_context(fails, tiny, text, tmp_path):
    more = (*words(tiny("llama"), text, tmp_path / "out")[:-1], "65")
    fails("longer than the model's context of 64", "--seq-len 64", *more)


# budgets, formats, patterns, recipes


def test_a_budget_below_the_cheapest_plan(fails, tiny, text, tmp_path):
    out = tmp_path / "out"
    said = fails("the cheapest plan on this menu needs", "`", *words(tiny("llama"), text, out, "1 bits/weight"))
    assert "asked for 1 bits/weight" in said
    # what it names is enough, to the byte
    code = words(tiny("llama"), text, out, "1 bytes")
    needs = fails("the cheapest plan on this menu needs", "", *code).partition("needs ")[2].split()[0]
    result = cut(str(tiny("llama")), str(text), f"{needs} bytes", out=out, samples=12, seq_len=32)
    assert result["resumed"]
    assert result["spent"]["bytes"] == int(needs.replace("_", "")) == (out / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        (("-f", "compresed-tensors"), "there is no format `compresed-tensors`", "`compressed-tensors`"),
        (("-b", "four"), "cannot read the budget `four`", "bits/weight"),
        (("-b", "50% ms", "-f", "gguf"), "gguf files of language models are not timed yet", "torch-export"),
        (("--over", "heads"), "`--over heads` is not known", "`all` or `linear`"),
        (("--keep", "nothing.like.it"), "`nothing.like.it` matches no unit", "units are named like"),
        (("--pin", "lm_head=int(bits=9)"), "int has 2 to 8 bits, not 9", ""),
        (("--pin", "lm_head=inT(bits=4)"), "there is no edit `inT`", "did you mean `int`?"),
        (("--damage", "cronecker"), "there is no damage `cronecker`", "`kronecker`"),
        (("--allocate", "lagrang"), "there is no allocator `lagrang`", "`lagrange`"),
        (("--round", "nearst"), "there is no rounding `nearst`", "nearest"),
        (("--device", "toaster"), "there is no device `toaster` here", "--device cpu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_words_that_are_not_known(fails, tiny, text, tmp_path, more, message, hint, monkeypatch):
    monkeypatch.setattr("secateur.cut.gathering.backward", lambda *_: pytest.fail("the long part has begun"))
    fails(message, hint, *words(tiny("llama"), text, tmp_path / "out"), *more)


def test_an_unknown_key_in_a_recipe(fails, tiny, text, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("budjet: 4 bits/weight\n")
    code = (*words(tiny("llama"), text, tmp_path / "out"), "--recipe", recipe)
    fails("unknown key `budjet`", "did you mean `budget`?", *code)


def test_a_folder_that_cannot_be_written(fails, tiny, text, tmp_path):
    (tmp_path / "file").write_text("in the way")
    fails("cannot write to", "another folder with -o", *words(tiny("llama"), text, tmp_path / "file" / "out"))


# plans and menus


@pytest.fixture(scope="module")
def planned(tiny, text, tmp_path_factory, quick):
    """A menu of the Llama, and a plan."""
    folder = tmp_path_factory.mktemp("planned")
    menu = survey(str(tiny("llama")), str(text), out=folder / "menu", over="linear", **quick)
    save_plan(plan(menu, ["5 bits/weight"])[0], folder / "plan.yaml")
    return folder


def test_a_plan_of_another_model(fails, planned, tiny, text, tmp_path):
    other = tiny("llama", intermediate_size=128)
    code = ("apply", other, planned / "plan.yaml", "--data", text, "-o", tmp_path / "out", *ENOUGH)
    said = fails("is of another model", "give the one that the plan was made for", *code)
    assert str(tiny("llama")) in said


def test_a_menu_of_another_model(fails, planned, tiny, text, tmp_path):
    other = tiny("llama", intermediate_size=128)
    survey(str(other), str(text), out=tmp_path / "menu", samples=12, seq_len=32, over="linear")
    code = ("apply", tiny("llama"), planned / "plan.yaml", "--menu", tmp_path / "menu", "--data", text)
    fails("is of another model", "", *code, "-o", tmp_path / "out", *ENOUGH)


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        (
            "model.layers.0.mlp.down_proj: ",
            "model.layers.9.mlp.down_proj: ",
            "does not name `model.layers.0.mlp",
            "again",
        ),
        ("lm_head: keep()", "lm_head: int(bits=33)", "int has 2 to 8 bits, not 33", ""),
        ("lm_head: keep()", "lm_head: prune(0.5)", "there is no edit `prune`", "there are"),
        ("lm_head: keep()", "lm_head: __import__('os')", "there is no edit `__import__`", "there are"),
        ("lm_head: keep()", "lm_head: int(bits=4, group=48)", "do not divide into groups of 48", "another edit"),
        ("edits:\n", "edits: {}\nrest:\n", "has no `edits:`", "one line per unit"),
    ],
)
def test_a_plan_that_was_mended_badly(fails, planned, tiny, text, tmp_path, old, new, message, hint):
    page = (planned / "plan.yaml").read_text()
    assert old in page
    (tmp_path / "plan.yaml").write_text(page.replace(old, new))
    code = ("apply", tiny("llama"), tmp_path / "plan.yaml", "--data", text, "-o", tmp_path / "out", *ENOUGH)
    fails(message, hint, *code)


# the disk


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(kilobytes)` -> a folder on a disk of that size; again for another size of the same disk."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def get(kilobytes: int) -> Path:
        options = f"{'remount,' if folder.is_mount() else ''}size={kilobytes}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("only root can make a small disk")
        return folder

    yield get
    if folder.is_mount():
        subprocess.run(["umount", "-l", folder], check=True)  # a reader may still have a file of it mapped


def test_a_full_disk_and_then_some_room(small_disk, tiny, text, tmp_path, quick):
    """Wherever it gets full, it says so, and with more room the same command goes on."""
    model, finished = str(tiny("llama")), False
    cut(model, str(text), "5 bits/weight", out=tmp_path / "whole", **quick)
    full = 0
    for kilobytes in (40, 150, 300, 500, 620, 680, 740, 4000):
        out = small_disk(kilobytes) / "out"
        try:
            result = cut(model, str(text), "5 bits/weight", out=out, **quick)
            finished = True
            break
        except SecateurError as error:
            full += 1
            assert "the disk is full" in error.message
            assert "run the same command again" in error.hint
            assert not list(out.rglob("*.part"))
            assert not (out / "config.json").exists()
    assert finished and full >= 4
    assert result["resumed"]
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_a_limit_on_files_is_a_full_disk(tiny, text, tmp_path):
    """Without being root: a limit on the size of files, in a process of its own."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from secateur.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *map(str, words(tiny("llama"), text, tmp_path / "out"))]
    env = {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "PATH": "", "HF_HUB_OFFLINE": "1"}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # or half a file of it would be left in the cache
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2, done.stderr
    error, hint = done.stderr.strip().splitlines()[-2:]
    assert error.startswith("error: the disk is full: ")
    assert hint == "hint: make room and run the same command again; finished work is kept and taken up"
    assert not list((tmp_path / "out").rglob("*.part"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


def test_an_export_that_reads_back_wrong_never_appears(tiny, text, tmp_path, quick, monkeypatch):
    out = tmp_path / "out"
    good = cut(str(tiny("llama")), str(text), "8 bits/weight", out=out, over="linear", **quick)
    before = (out / "model.safetensors").read_bytes()
    monkeypatch.setattr("secateur.export._verify.LIMIT", -1.0)
    with pytest.raises(SecateurError, match="its logits differ from ours"):
        cut(str(tiny("llama")), str(text), "5 bits/weight", out=out, over="linear", **quick)
    assert (out / "model.safetensors").read_bytes() == before
    assert json.loads((out / "secateur.json").read_text())["budget"] == good["budget"]


def test_a_plan_object_of_another_format(tiny, text, tmp_path, planned, quick):
    (chosen,) = plan(planned / "menu", ["5 bits/weight"])
    with pytest.raises(SecateurError, match="there is no rounding `up`"):
        apply(str(tiny("llama")), chosen, data=str(text), out=tmp_path / "out", round="up", **quick)
    assert not (tmp_path / "out").exists()
