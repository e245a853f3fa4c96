"""Bench: what a contestant is, everyone at the same bytes, others beside, and a run that goes on."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from secateur.bench import bench, picture, winners
from secateur.bench.contestants import Contestant, contestant
from secateur.report.pictures import rivals
from secateur.types import SecateurError

MODELS = runpy.run_path(str(Path(__file__).parents[1] / "front_door" / "conftest.py"))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("two-sided", ("lagrange", "two-sided", "kronecker")),
        ("uniform+rtn", ("uniform", "nearest", "kronecker")),
        ("gptq", ("lagrange", "one-sided", "kronecker")),
        ("layerwise_quant + nearest", ("layerwise-quant", "nearest", "kronecker")),
        ("kronecker+baq", ("baq", "two-sided", "kronecker")),
    ],
)
def test_a_contestant_is_made_of_parts(words, meant):
    assert contestant(words) == Contestant(words, *meant)


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("two-sidde", "no allocator, rounding, damage or method `two-sidde`", "did you mean `two-sided`?"),
        ("rtn+gptq", "`rtn+gptq` says twice how to round", "at most one"),
        (" + ", "a contestant has no name", "lagrange"),
    ],
)
def test_what_is_no_contestant(words, said, hint):
    with pytest.raises(SecateurError, match=re.escape(said)) as caught:
        contestant(words)
    assert hint in caught.value.hint


def row(name: str, budget: str, size: int, kl: float | None) -> dict:
    known = {"contestant": name, "budget": budget, "bytes": size, "kl": kl}
    return known | {"kl_interval": None if kl is None else [kl - 0.02, kl + 0.02]}


ROWS = [row("a <b>", "4 bits", 400, 0.03), row("b", "4 bits", 390, 0.1), row("b", "2 bits", 200, 1.0)]


def test_who_wins_where():
    assert winners([*ROWS, row("c", "2 bits", 0, None)]) == {"4 bits": "a <b>", "2 bits": "b"}
    assert winners(ROWS) == {"4 bits": "a <b>"}, "who was alone has won nothing"
    assert winners(ROWS[:1]) == {"4 bits": "a <b>"}


def test_a_picture_has_a_line_for_everyone_and_stands_alone():
    drawn = picture(ROWS)
    assert drawn.count("<polyline") == 2 and drawn.count("<title>") == 3 and "a &lt;b&gt;" in drawn
    assert "xmlns" in drawn and "var(" not in drawn
    assert "nan" not in rivals(ROWS[:1]), "one point is a picture, too"
    assert picture([row("c", "2 bits", 0, None)]) == ""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    model = MODELS["save"]("llama", "float16", {}, folder / "model")
    (folder / "text.txt").write_text("The old tree grows slowly and bends under the young leaf. " * 300)
    (folder / "heldout.txt").write_text("A green stem keeps the quick root over red or young if cuts. " * 40)
    return folder, str(model)


HOW: dict[str, Any] = {"samples": 12, "seq_len": 32}


def test_everyone_keeps_to_the_same_bytes(place):
    folder, model = place
    words, budgets = ["two-sided", "uniform+rtn"], ["70% bytes", "9 bits/weight"]

    def stop(*_) -> None:
        if (folder / "out" / "two-sided-70percent-bytes" / "bench-row.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(model, str(folder / "text.txt"), budgets, words, out=folder / "out", tell=stop, **HOW)
    page = (folder / "out" / "report.html").read_text()
    assert "not finished" in page and page.count("<td class=w>two-sided</td>") == 1, "what is there is shown"
    found = bench(model, str(folder / "text.txt"), budgets, words, out=folder / "out", **HOW)
    rows = found["rows"]
    assert [(one["budget"], one["contestant"]) for one in rows] == [(b, w) for b in budgets for w in words]
    most = json.loads((folder / "out" / "two-sided-70percent-bytes" / "secateur.json").read_text())["budget"]["bytes"]
    done = [one for one in rows if one["kl"] is not None]
    assert len(done) >= 3 and all(one["bytes"] <= most for one in done if one["budget"] == budgets[0])
    assert all(one["bits_per_weight"] <= 9 for one in done if one["budget"] == budgets[1])
    assert all(low <= one["kl"] <= high for one in done for low, high in [one["kl_interval"]])
    assert all(one["note"] for one in rows if one["kl"] is None)
    assert json.loads((folder / "out" / "bench.json").read_text())["rows"] == rows
    assert "not finished" not in (folder / "out" / "report.html").read_text()
    assert not list((folder / "out").glob("*/*.safetensors")), "gigabytes do not stay"
    before = {file: file.stat().st_mtime_ns for file in (folder / "out").glob("*/bench-row.json")}
    assert bench(model, str(folder / "text.txt"), budgets, words, out=folder / "out", **HOW)["rows"] == rows
    assert {file: file.stat().st_mtime_ns for file in before} == before, "finished rows are taken up"


def test_files_of_others_stand_beside(place, secateur):
    folder, model = place
    texts = ["--data", folder / "text.txt", "--text", folder / "heldout.txt", "--samples", 12, "--seq-len", 32]
    asked = ["--budgets", "9 bits/weight", "--methods", "gptq", "--beside", model, "--keep-files", "--json"]
    done = secateur("bench", model, *texts, *asked, "-o", folder / "beside")
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout)["rows"]
    assert (ours["contestant"], theirs["contestant"]) == ("gptq", model)
    assert theirs["kl"] == 0 and theirs["bytes"] > ours["bytes"] and ours["kl"] > 0
    assert list((folder / "beside" / "gptq-9-bits-weight").glob("*.safetensors"))


def test_others_need_a_text_of_their_own(place):
    folder, model = place
    with pytest.raises(SecateurError, match="only be measured on a text of its own"):
        bench(model, str(folder / "text.txt"), ["4 bits/weight"], ["gptq"], out=folder / "no", beside=[model])
    assert not (folder / "no").exists()


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model whose rows fill llama.cpp's blocks."""
    folder = tmp_path_factory.mktemp("rivals")
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_key_value_heads": 2}
    model = MODELS["save"]("llama", "float16", sizes, folder / "model")
    (folder / "text.txt").write_text("The old tree grows slowly and bends under the young leaf. " * 300)
    return folder, str(model)


@pytest.mark.usefixtures("llama")
def test_rivals_stand_in_the_table_at_the_bytes_of_their_files(wide):
    folder, model = wide
    asked = {"budgets": ["6 bits/weight"], "contestants": ["two-sided"], "rivals": ["rtn:w8g32", "llama.cpp"], **HOW}
    found = bench(model, str(folder / "text.txt"), out=folder / "out", **asked)
    ours, twin, llama, other, rtn = found["rows"]
    assert [one["contestant"] for one in (ours, twin, other)] == ["two-sided"] * 3 and found[
        "format"
    ] == "compressed-tensors"
    assert llama["contestant"].startswith("llama.cpp ") and llama["asked"] == "6 bits/weight"
    assert twin["bits_per_weight"] <= llama["bits_per_weight"] <= 6 and llama["budget"] == twin["budget"]
    assert rtn["contestant"] == "rtn w8g32" and rtn["budget"] == other["budget"] == f"{rtn['bytes']:_} bytes"
    assert other["bytes"] <= rtn["bytes"]
    for theirs, mine in ((llama, twin), (rtn, other)):
        assert theirs["kl_more"] == pytest.approx(theirs["kl"] - mine["kl"])
        low, high = theirs["kl_more_interval"]
        assert low <= theirs["kl_more"] <= high and mine["kl_more"] is None
    left = [*(folder / "out").rglob("*.gguf"), *(folder / "out").rglob("*.safetensors")]
    assert not [file for file in left if "menu-kronecker" not in file.parts], "gigabytes do not stay"
    again = bench(model, str(folder / "text.txt"), out=folder / "out", **asked)
    assert again["rows"] == found["rows"], "finished rows are taken up"
    assert len({tuple(sorted(one)) for one in found["rows"]}) == 1, "every row has the same keys"


def test_our_file_is_scored_as_it_was_when_it_was_cut(wide):
    """What apply saw while it cut and what the scorer reads from the file are one."""
    from secateur import cut
    from secateur.cut.opening import open_case
    from secateur.measure.scorer import scorer

    folder, model = wide
    told = cut(model, str(folder / "text.txt"), "6 bits/weight", out=folder / "cut", **HOW)
    held = open_case(model, str(folder / "text.txt"), "compressed-tensors", 12, 32, 0, None).held
    with scorer(model) as score:
        found, size, bits, _ = score(str(folder / "cut"), held)
    assert found.kl == pytest.approx(told["kl"], rel=1e-3) and size == told["export"]["bytes_on_disk"]
    assert bits == pytest.approx(told["spent"]["bits_per_weight"])
    assert found.kls == pytest.approx(json.loads((folder / "cut" / "windows.json").read_text())["kl"], rel=1e-2)


def test_mergekit_is_met_with_fewer_channels_heads_and_layers(tmp_path):
    """The deepest cut that a budget asks for and no deeper, and a plain file of ours at its bytes."""
    from secateur.bench.rivals import find

    tool = find("mergekit", {})[0]
    if tool.version() is None:
        pytest.skip(f"mergekit is not here: {tool.get()}")
    more = {"num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4}
    model = str(MODELS["save"]("llama", "float16", more, tmp_path / "model"))
    (tmp_path / "text.txt").write_text("The old tree grows slowly and bends under the young leaf. " * 300)
    asked = {"budgets": ["75% bytes", "1% bytes"], "rivals": ["mergekit", "mergekit:drop5"], **HOW}
    rows = bench(model, str(tmp_path / "text.txt"), contestants=["lagrange"], out=tmp_path / "out", **asked)["rows"]
    (theirs,) = [row for row in rows if row["setting"] == "drop2" or row["setting"] == "drop1"]
    (twin,) = [row for row in rows if row["budget"] == theirs["budget"] and row is not theirs]
    assert twin["contestant"] == "lagrange" and twin["bytes"] <= theirs["bytes"] and twin["kl"] > 0
    assert theirs["kl_more"] == pytest.approx(theirs["kl"] - twin["kl"])
    notes = [row["note"] for row in rows if row["tool"] and row["kl"] is None]
    assert "even its smallest setting, drop4, takes about" in notes[0]
    assert "drop5 would leave nothing of a network of 5 layers" in notes[1]


PRESS = '''"""press: as one that shortens caches, told what to say."""
import json, numpy
NAME, DISTRIBUTION, FORMAT, SHAPE, PROMPT = "press", "numpy", "packed", ".*", 0.75
SETTINGS = ("half", "quarter")
def bits(setting, rows, cols):
    return 16.0
def left(setting):
    return {{"half": 0.5, "quarter": 0.25}}[setting]
def cut(job):
    n = len(numpy.load(job.tokens))
    {then}
    lost = {{"kl": [0.5] * n, "rise": [job.prompt] * n, "agreement": [0.75] * n, "left": left(job.setting)}}
    (job.out / "windows.json").write_text(json.dumps(lost))
    return "1"
'''


@pytest.mark.parametrize(
    ("caps", "then", "said"),
    [
        ({"kv": 100.0}, "", "half"),
        ({"kv": 40.0}, "", "quarter"),
        ({"kv": 10.0}, "", "even quarter leaves more of the cache"),
        ({"bytes": 1e9}, "", "it shortens the cache alone, and knows nothing of bytes"),
        ({"kv": 100.0}, "raise SystemExit('no such layer')", "ended with 1: no such layer"),
        ({"kv": 100.0}, "return '1'", "left no file"),
    ],
)
def test_a_press_is_met_at_its_share_of_the_cache(place, tmp_path, caps, then, said):
    """Half of 2 KV heads x 16 numbers x 2 layers, keys and values of 16 bits; it reads 24 of 32 tokens as a prompt."""
    from secateur.bench.presses import meet_press
    from secateur.bench.rivals import Rival
    from secateur.bench.versus import Field

    folder, model = place
    (tmp_path / "press.py").write_text(PRESS.format(then=then))
    how = {"format": "packed", **HOW, "seed": 0, "device": None}
    more = {"limit": 60.0, "prompt": 0.75}
    here = Field(model, str(folder / "text.txt"), None, tmp_path / "out", how, None, lambda *_: None, **more)
    whole, rival = here.case.stream.kv, Rival(tmp_path / "press.py")
    caps = {name: cap / 100 * whole if name == "kv" else cap for name, cap in caps.items()}
    entry = meet_press(here, rival, rival.settings, caps, "asked")
    if said not in rival.settings:
        assert said in entry.row["note"] and entry.row["kl"] is None and entry.row["kv"] is None
        return
    assert entry.row["setting"] == said and entry.row["kv"] == whole * rival.own.left(said)
    assert entry.row["budget"] == f"kv {entry.row['kv']} B/token" and len(entry.kls) == len(here.case.held)
    assert (entry.row["kl"], entry.row["rise"], entry.row["agreement"]) == (0.5, 24.0, 0.75)
    assert entry.row["bytes"] == (Path(model) / "model.safetensors").stat().st_size


def test_everybody_is_scored_behind_the_prompt_where_a_press_takes_part(place):
    """By hand: the mean over the tokens that the rest of every window predicts."""
    import torch
    import transformers

    from secateur.measure.compare import sums
    from secateur.measure.scorer import scorer

    folder, model = place
    other = MODELS["save"]("llama", "float16", {"intermediate_size": 128}, folder / "other")
    tokens = torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(0))
    with scorer(model, prompt=0.75) as score:
        found, *_ = score(str(other), tokens)
    load = transformers.AutoModelForCausalLM.from_pretrained
    with torch.no_grad():
        ours, theirs = (load(one, dtype=torch.float32)(tokens).logits[:, 15:-1] for one in (other, model))
    known = sums(ours, tokens[:, 16:], theirs)
    assert found.kls == pytest.approx((known["kls"] / 4).tolist(), rel=1e-4) and found.tokens == 12
    assert found.losses == pytest.approx((known["losses"] / 4).tolist(), rel=1e-4)


def test_kvpress_is_met_at_bytes_of_the_cache(place):
    """Pressing nothing away loses nothing, and ours has no more of the cache than what is left of theirs."""
    from secateur.bench.rivals import find

    tool = find("kvpress", {})[0]
    if tool.version() is None:
        pytest.skip(f"kvpress is not here: {tool.get()}")
    folder, model = place
    asked = {"budgets": ["50% kv", "3 MB"], "rivals": ["kvpress", "kvpress:knorm-1"], **HOW}
    found = bench(model, str(folder / "text.txt"), contestants=["lagrange"], out=folder / "kv", **asked)
    rows = {(row["contestant"], row["asked"]): row for row in found["rows"]}
    half, all_ = rows["kvpress snapkv-0.5", "50% kv"], rows["kvpress knorm-1", ""]
    ours = rows["lagrange", half["budget"]]
    assert ours["kv"] <= half["kv"] and ours["kl"] > 0 and half["kl"] > 0 and half["kl_more"] is not None
    assert all_["kl"] == pytest.approx(0, abs=1e-5) and all_["kv"] == 2 * half["kv"]
    assert "knows nothing of bytes" in rows["kvpress", "3 MB"]["note"]


BAD = '''"""bad: {name}."""
NAME, DISTRIBUTION, FORMAT, SHAPE = "bad", "numpy", "gguf", ".*"
SETTINGS = ("large", "small")
def bits(setting, rows, cols):
    return {bits}
def cut(job):
    (job.packed / "model.gguf").write_bytes({content})
    {then}
'''


@pytest.mark.parametrize(
    ("bits", "content", "then", "said"),
    [
        ("4.0", "b'GGUF'", "return '1'", "its file cannot be read|GGUF"),
        ("4.0", "b''", "raise SystemExit('no such kernel')", "ended with 1: no such kernel; its words are in .*log"),
        ("4.0", "b''", "import time; time.sleep(60)", "took more than 2 seconds"),
        ("99.0", "b''", "return '1'", "even its smallest setting, small, takes about"),
    ],
)
def test_a_bad_rival_is_a_row_that_says_so(wide, tmp_path, bits, content, then, said):
    from secateur.bench.rivals import Rival
    from secateur.bench.versus import Field, meet

    folder, model = wide
    (tmp_path / "bad.py").write_text(BAD.format(name="as bad as can be", bits=bits, content=content, then=then))
    how = {"format": "gguf", **HOW, "seed": 0, "device": None}
    here = Field(model, str(folder / "text.txt"), None, tmp_path / "out", how, None, lambda *_: None, 2.0)
    row = meet(here, Rival(tmp_path / "bad.py"), ("large", "small"), {"bits_per_weight": 12.0}, "12 bits/weight").row
    assert re.search(said, row["note"]) and row["kl"] is None and row["bytes"] is None
    assert (row["budget"], row["version"]) == ("12 bits/weight", Rival(tmp_path / "bad.py").version())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rivals": ["hqq"], "budgets": ["4 bits/weight"]}, "hqq is not installed"),
        ({"rivals": ["rtn"], "budgets": []}, "there is no budget"),
        ({"rivals": ["torch-pruning"]}, "torch-pruning cuts image models"),
    ],
)
def test_what_cannot_be_met_is_said_before_the_long_part(place, more, said):
    folder, model = place
    more = {"budgets": ["4 bits/weight"]} | more
    with pytest.raises(SecateurError, match=said):
        bench(model, str(folder / "text.txt"), contestants=["gptq"], out=folder / "no", **more)
    assert not (folder / "no").exists()


@pytest.mark.usefixtures("llama")
def test_over_linear_everybody_leaves_embeddings_alone(wide):
    """What people call a 4-bit model: the layers inside the blocks are counted, embeddings and head stay in 16 bits."""
    from secateur.bench.rivals import find
    from secateur.bench.versus import Field, meet

    folder, model = wide
    how = {"format": "compressed-tensors", **HOW, "seed": 0, "device": None}
    rows = []

    def score(*_):
        raise SecateurError("not scored here")

    for over, budget in (("all", 8.0), ("linear", 5.0)):
        out = folder / "linear"
        here = Field(model, str(folder / "text.txt"), None, out, how, score, lambda *_: None, 60.0, over)
        rival = find("llama.cpp", {})[0]
        meet(here, rival, ("q5_k_m", "q4_k_m"), {"bits_per_weight": budget}, f"{budget} bits/weight")
        kept = sorted((out / "rivals").glob(f"*-{over}/llamacpp-*/run.json"))
        rows.append({file.parent.name: json.loads(file.read_text()) for file in kept})
    all_, linear = rows
    assert set(linear) == {"llamacpp-q4_k_m+f16emb", "llamacpp-q5_k_m+f16emb"} and "llamacpp-q5_k_m" in all_
    assert (
        linear["llamacpp-q4_k_m+f16emb"]["bits_per_weight"] <= 5.0 < linear["llamacpp-q5_k_m+f16emb"]["bits_per_weight"]
    )
    assert linear["llamacpp-q5_k_m+f16emb"]["bytes"] > all_["llamacpp-q5_k_m"]["bytes"]


def test_budgets_that_need_other_edits_get_them(tmp_path):
    """FLOPs of an image model: channels are on the menu though nobody asked for them."""
    import numpy as np

    model = _small_resnet(tmp_path)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (60, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=draw.integers(0, 10, 60))
    asked = {"contestants": ["two-sided"], "format": "safetensors", "samples": 30}
    (row,) = bench(str(model), str(tmp_path / "data.npz"), ["80% flops"], out=tmp_path / "out", **asked)["rows"]
    assert row["flops"] and row["kl"] > 0 and row["bits_per_weight"] < 32


def _small_resnet(folder: Path) -> Path:
    """ResNet-8, random."""
    import torch
    from safetensors.torch import save_file

    shapes = {"conv1": (16, 3)} | {
        f"layer{s}.0.conv{c}": (16 * 2 ** (s - 1), 16 * 2 ** max(s - 2, 0) if c == 1 else 16 * 2 ** (s - 1))
        for s in (1, 2, 3)
        for c in (1, 2)
    }
    draw, state = torch.Generator().manual_seed(0), {}
    for name, (rows, cols) in shapes.items():
        state[f"{name}.weight"] = torch.randn(rows, cols, 3, 3, generator=draw) * (2 / (9 * cols)) ** 0.5
        norm = name.replace("conv", "bn")
        state |= {f"{norm}.{part}": torch.ones(rows) for part in ("weight", "running_var")}
        state |= {f"{norm}.{part}": torch.zeros(rows) for part in ("bias", "running_mean")}
    state |= {"linear.weight": torch.randn(10, 64, generator=draw) / 8, "linear.bias": torch.zeros(10)}
    save_file(state, folder / "resnet8.safetensors")
    return folder / "resnet8.safetensors"
