"""Data to windows: even, disjoint, reproducible; and what bad data gets."""

from __future__ import annotations

import gzip
import json
import logging
import sys
import types
from itertools import pairwise

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from secateur.model.text import _thin, documents, load_tokenizer, windows
from secateur.types import DataError

WORDS = [f"w{i}" for i in range(5000)]


@pytest.fixture(scope="module")
def tokenizer():
    """One token for every word, so that a token is its place in the text."""
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*WORDS, "[UNK]"])}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", model_max_length=64)


def text(n: int, line: int = 10) -> str:
    return "\n".join(" ".join(WORDS[i : min(i + line, n)]) for i in range(0, n, line))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(text(5000))
    return path


def error(*args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        windows(*args, **kwargs)
    assert caught.value.hint
    return str(caught.value)


def spans(*parts):
    return sorted((int(w[0]), int(w[-1])) for part in parts for w in part)


@pytest.mark.parametrize(("samples", "length"), [(8, 16), (60, 16), (300, 16), (40, 60)])
def test_windows_are_runs_of_the_text_that_do_not_overlap(file, tokenizer, samples, length):
    calibrate, held = windows(file, tokenizer, samples, length)
    assert calibrate.dtype == torch.long and calibrate.shape[1] == held.shape[1] == length
    for window in torch.cat([calibrate, held]):
        assert torch.equal(window, torch.arange(int(window[0]), int(window[0]) + length))
    all_ = spans(calibrate, held)
    assert all(a[1] < b[0] for a, b in pairwise(all_))
    assert all_[0][0] < 5000 / len(all_) and all_[-1][1] > 5000 * (1 - 1 / len(all_)) - 1  # from one end to the other


def test_held_back_windows_lie_between_the_others(file, tokenizer):
    calibrate, held = windows(file, tokenizer, 80, 16)
    assert (len(calibrate), len(held)) == (80, 20)  # one for four
    order = sorted([(int(w[0]), "c") for w in calibrate] + [(int(w[0]), "h") for w in held])
    kinds = "".join(kind for _, kind in order)
    assert "h" not in kinds[:2] + kinds[-2:] and "hh" not in kinds and "c" * 9 not in kinds


@pytest.mark.parametrize(("samples", "expected"), [(8, 16), (64, 16), (80, 20), (200, 50)])
def test_how_many_are_held_back(file, tokenizer, samples, expected):
    calibrate, held = windows(file, tokenizer, samples, 16)
    assert (len(calibrate), len(held)) == (samples, expected)


def test_a_short_text_gives_one_in_five_and_says_so(tmp_path, tokenizer, caplog):
    path = tmp_path / "short.txt"
    path.write_text(text(1000))
    with caplog.at_level(logging.WARNING, "secateur"):
        calibrate, held = windows(path, tokenizer, 500, 50)
    assert (len(calibrate), len(held)) == (16, 4)
    assert "16 calibration windows instead of the 500 asked for" in caplog.text


def test_the_seed_decides_where(file, tokenizer):
    one, same, other = (windows(file, tokenizer, 20, 16, seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_length_is_the_context_by_default(file, tokenizer):
    assert windows(file, tokenizer, 8)[0].shape[1] == 64
    assert windows(file, tokenizer, 8, context=32)[0].shape[1] == 32
    assert "windows of 65 tokens are longer than the model's context of 64" in error(file, tokenizer, 8, 65)
    assert "predict nothing" in error(file, tokenizer, 8, 1)


def test_only_what_is_needed_is_tokenized(file, tokenizer):
    asked = []

    class Counting:
        model_max_length = 64

        def __call__(self, text, **kwargs):
            asked.append(len(text))
            assert kwargs["add_special_tokens"] is False
            return tokenizer(text, **kwargs)

    file.write_text(text(5000) * 200)
    windows(file, Counting(), 20, 16)
    assert sum(asked) < file.stat().st_size / 20


def test_a_text_without_lines_or_spaces_is_still_covered(tmp_path):
    raw = Tokenizer(models.BPE({"a": 0, "b": 1, "aa": 2}, [("a", "a")]))
    letters = PreTrainedTokenizerFast(tokenizer_object=raw)
    path = tmp_path / "x.txt"
    path.write_text("a" * 200_000 + "b" * 200_000)
    calibrate, _ = windows(path, letters, 8, 32)
    assert set(calibrate.flatten().tolist()) == {1, 2} and len(calibrate) == 8


# ------------------------------------------------------------------------------------------------- where it comes from


def test_every_kind_of_file_gives_the_same_text(tmp_path, tokenizer):
    lines = text(2000).split("\n")
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"id": 1, "text": line}) for line in lines))
    (tmp_path / "a.csv").write_text("id,content\n" + "\n".join(f'1,"{line}"' for line in lines))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    truth = windows(tmp_path / "a.txt", tokenizer, 10, 16)
    for name in ("a.jsonl", "a.csv", "b.txt.gz"):
        for one, two in zip(windows(tmp_path / name, tokenizer, 10, 16), truth, strict=True):
            assert torch.equal(one, two), name


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="parquet is read by pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": [1, 2], "text": ["a b", "c"]}), tmp_path / "a.parquet")
    assert list(documents(str(tmp_path / "a.parquet"))) == ["a b", "c"]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but no more")
    assert "not a parquet file" in error(tmp_path / "b.parquet", None, 4, 16)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow" in error(tmp_path / "a.parquet", None, 4, 16)


def test_a_folder_is_its_texts_in_order(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.md").write_text("one")
    (tmp_path / "deep" / "c.jsonl").write_text('{"text": "three"}')
    (tmp_path / "picture.png").write_bytes(b"\0\0")
    assert list(documents(str(tmp_path))) == ["one", "two", "three"]
    empty = tmp_path / "none"
    empty.mkdir()
    assert "holds no text" in error(empty, None, 4, 16)


def test_a_hub_data_set(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return iter([{"text": "one"}, {"text": "two"}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert list(documents("hf:org/name:config:test")) == ["one", "two"]
    assert asked == [(("org/name", "config"), {"split": "test", "streaming": True})]
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "needs the datasets library" in error("hf:org/name", None, 4, 16)


def test_endless_text_is_thinned_evenly():
    kept = _thin((f"{i:06d}" * 20 for i in range(100_000)), most=500_000)
    seen = [int(line[:6]) for chunk in kept for line in chunk.split("\n")]
    assert 500_000 <= sum(map(len, kept)) <= 1_000_000
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] > 85_000
    assert _thin(["a", "b"], most=100) == ["a\nb"]


def test_a_tokenizer_is_what_its_file_says(tokenizer, tmp_path):
    """transformers would put Qwen2's own class in its place, which splits nothing at white space."""
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    assert load_tokenizer(tmp_path)("w7 w8 w9", add_special_tokens=False)["input_ids"] == [7, 8, 9]


# ------------------------------------------------------------------------------------------------------------ bad data


def test_bad_data(tmp_path, tokenizer):
    def put(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    assert "there is no file" in error(tmp_path / "none.txt", tokenizer, 4, 16)
    assert "is empty" in error(put("empty.txt", b""), tokenizer, 4, 16)
    assert "holds no text" in error(put("blank.txt", b" \n \n"), tokenizer, 4, 16)
    assert "is a binary file" in error(put("binary.txt", b"abc\0def"), tokenizer, 4, 16)
    assert "is not text in UTF-8" in error(put("latin.txt", "größer".encode("latin-1")), tokenizer, 4, 16)
    assert "is not text in UTF-8" in error(put("broken.txt.gz", gzip.compress(b"abc" * 99)[:20]), tokenizer, 4, 16)
    assert "holds arrays, not text" in error(put("images.npz", b"PK"), tokenizer, 4, 16)
    assert "line 2, is not JSON" in error(put("bad.jsonl", b'{"text": "a"}\n{oops\n'), tokenizer, 4, 16)
    assert "has no column `text`" in error(put("two.jsonl", b'{"a": "x", "b": "y"}'), tokenizer, 4, 16)
    assert "has no rows" in error(put("none.csv", b"text\n"), tokenizer, 4, 16)
    assert "nothing in its column of text" in error(put("null.jsonl", b'{"text": null}\n' * 9), tokenizer, 4, 16)


def test_forty_tokens_are_too_few(tmp_path, tokenizer):
    path = tmp_path / "tiny.txt"
    path.write_text(text(40))
    assert "gives only 40 tokens; windows of 16 need at least 256\nhint: give more text" in error(
        path, tokenizer, 8, 16
    )
    path.write_text(text(300))
    assert error(path, tokenizer, 8, 64).endswith(
        "gives only 300 tokens; windows of 64 need at least 320\nhint: give more text, or shorter windows: --seq-len 60"
    )


def test_tokenizer_of_another_model(file, tokenizer):
    assert "but the model has only 100" in error(file, tokenizer, 8, 16, vocabulary=100)


def test_no_tokenizer(tmp_path, file):
    assert "holds no tokenizer" in error(file, tmp_path, 8, 16)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "cannot be read" in error(file, tmp_path, 8, 16)


def test_tokenizer_beside_the_weights(tmp_path, file, tokenizer):
    tokenizer.save_pretrained(tmp_path / "model")
    one, two = windows(file, tmp_path / "model", 8, 16), windows(file, load_tokenizer(tmp_path / "model"), 8, 16)
    assert torch.equal(one[0], two[0])
