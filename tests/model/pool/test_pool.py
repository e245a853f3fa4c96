"""Files to choose from: understood as a user would, and what is chosen written back byte for byte."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.model.pool import open_pool
from secateur.model.pool.arrays import Arrays
from secateur.model.pool.separators import WAYS, guess, parted
from secateur.types import DataError


def put(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    raw = content.encode() if isinstance(content, str) else content
    file.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return file


def told(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


TEXTS = {
    "line": ("one\ntwo\nthree\n", ["one", "two", "three"], "lines, told apart by line ends"),
    "blank": ("one\nmore\n\ntwo\n\n  \nthree", ["one\nmore", "two", "three"], "documents, told apart by empty lines"),
    "blanks": ("one\n\nmore\n\n\ntwo\n\n\n\nthree\n", ["one\n\nmore", "two", "three\n"], "two empty lines or more"),
    "page": ("one\n\nmore\n\f\ntwo\n\f\nthree\n", ["one\n\nmore", "two", "three\n"], "form feeds"),
    "windows": ("one\r\nmore\r\n\r\ntwo\r\n\r\nthree\r\n", ["one\r\nmore", "two", "three\r\n"], "by empty lines"),
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("ending", [".txt", ".txt.gz"])
def test_a_text_is_parted_as_a_reader_would(case, ending, tmp_path):
    text, expected, said = TEXTS[case]
    pool = open_pool(put(tmp_path, f"pool{ending}", text))
    assert [one for _, one in pool.texts()] == expected and len(pool) == 3 and said in pool.taken
    pool.write(range(3), tmp_path / f"all{ending}")
    assert told(tmp_path / f"all{ending}").startswith(text.encode()), "all of it is the file, and a last line end"
    pool.write([2, 0], tmp_path / f"some{ending}")
    some = open_pool(tmp_path / f"some{ending}", "blank" if case == "windows" else case)
    assert [one.strip() for _, one in some.texts()] == [expected[0].strip(), expected[2].strip()]
    assert some.taken == pool.taken


def test_what_lies_between_documents_can_be_said(tmp_path):
    file = put(tmp_path, "pool.txt", "one\ntwo\n\nthree\nfour\n")
    assert [len(open_pool(file, way)) for way in ("line", "blank", "blanks", "page")] == [4, 2, 1, 1]
    with pytest.raises(DataError, match=r"`dot`.*\n.*page, blanks, blank, line"):
        open_pool(file, "dot")
    with pytest.raises(DataError, match="leave --documents out"):
        open_pool(put(tmp_path, "pool.csv", "text\na\n"), "line")


def test_a_list_of_lines_with_a_few_gaps_stays_one():
    assert guess("word\n" * 900 + "\n" + "word\n" * 900 + "\n\n\n" + "word\n" * 900) == "line"
    assert guess("a paragraph\nof two lines\n\n" * 50) == "blank"
    assert guess("alone") == "line"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("case", TEXTS)
def test_where_blocks_end_makes_no_difference(size, case):
    text, expected, _ = TEXTS[case]
    way = WAYS["blank" if case == "windows" else case]
    pieces = list(parted((text[at : at + size] for at in range(0, len(text), size)), way))
    assert "".join(one + behind for one, behind in pieces) == text
    assert [one for one, _ in pieces if one.strip()] == expected


CSV = 'id,text,label\n1,"a ""quoted"", one",x\n2,"two\nlines",y\n3,,z\n\n4,plain ,x'
JSONL = '{"text": "one", "n":1}\n{"n": 2,   "text": "tw\\u00f6"}\n\n{"text": null}\n{"text":"four"}'
ROWS = {
    "pool.csv": (CSV, ['a "quoted", one', "two\nlines", "plain "], b"id,text,label\n"),
    "pool.tsv": (CSV.replace(",", "\t"), ['a "quoted"\t one', "two\nlines", "plain "], b"id\ttext\tlabel\n"),
    "pool.jsonl": (JSONL, ["one", "twö", "four"], b""),
    "pool.jsonl.gz": (JSONL, ["one", "twö", "four"], b""),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_written_as_they_stand(name, tmp_path):
    text, expected, heading = ROWS[name]
    pool = open_pool(put(tmp_path, name, text))
    assert list(pool.texts()) == [(at, one) for at, one in zip((0, 1, 3), expected, strict=True)]
    assert len(pool) == 4 and pool.taken == "rows, by their column `text`"
    pool.write([3, 1], tmp_path / f"out-{name}")
    written = told(tmp_path / f"out-{name}")
    assert written.startswith(heading) and written.endswith(b"\n")
    assert [one for _, one in open_pool(tmp_path / f"out-{name}").texts()] == [expected[1], expected[2]]
    record = b'2,"two\nlines",y\n' if name == "pool.csv" else b'{"n": 2,   "text": "tw\\u00f6"}\n'
    assert record in written or name == "pool.tsv", "quotes, spaces and escapes as they were"


def test_a_parquet_keeps_its_schema(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table(
        {"text": [f"row {i}" for i in range(3000)], "n": arrow.array(range(3000), arrow.int16())},
        metadata={b"made": b"here"},
    )
    file = tmp_path / "pool.parquet"
    parquet.write_table(table, file, compression="zstd", row_group_size=500)
    pool = open_pool(file)
    assert len(pool) == 3000 and next(pool.texts()) == (0, "row 0")
    chosen = [7, 1999, 2500]
    pool.write(chosen, tmp_path / "out.parquet")
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.schema.equals(table.schema, check_metadata=True) and found.equals(table.take(chosen))
    pool.write(chosen, tmp_path / "again.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    with pytest.raises(DataError, match="not a parquet file"):
        open_pool(put(tmp_path, "bad.parquet", "no"))


def test_arrays_are_read_in_pieces_and_written_alike(tmp_path):
    draw = np.random.default_rng(0)
    held = {"images": draw.integers(0, 255, (50, 4, 4, 3)).astype(np.uint8), "labels": np.arange(50, dtype=np.uint8)}
    held |= {"name": np.array("pool"), "turned": np.asfortranarray(draw.random((50, 3))), "other": np.arange(7)}
    np.savez_compressed(tmp_path / "pool.npz", **held)
    pool = Arrays(tmp_path / "pool.npz")
    assert len(pool) == 50 and pool.labelled
    x, labels = (torch.cat(parts) for parts in zip(*pool.batches(16), strict=True))
    assert np.array_equal(x.numpy(), held["images"]) and labels.tolist() == list(range(50))
    chosen = [40, 3, 17]
    for name in ("one", "two"):
        pool.write(chosen, tmp_path / f"{name}.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as found:
        assert found.files == list(held)
        for name, value in held.items():
            mine = value[sorted(chosen)] if value.shape[:1] == (50,) else value
            assert np.array_equal(found[name], mine) and found[name].dtype == value.dtype
    with zipfile.ZipFile(tmp_path / "one.npz") as packed:
        assert {one.compress_type for one in packed.infolist()} == {zipfile.ZIP_DEFLATED}


BAD = {
    "nothing.txt": (None, "there is no file", "give a text file"),
    "empty.txt": ("", "is empty", "some examples"),
    "blank.txt": (" \n \n", "holds no text", "give a file"),
    "binary.txt": (b"a\0b", "binary file", "UTF-8"),
    "latin.txt": ("é".encode("latin-1"), "not text in UTF-8", "convert"),
    "half.jsonl": ('{"text": 1', "line 1, is not JSON", "one JSON object"),
    "columns.csv": ("a,b\nx,y\n", "has no column `text`", "rename one of its columns: a, b"),
    "heading.csv": ("text\n", "has no rows", "give a file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_a_sentence(name, tmp_path):
    content, message, hint = BAD[name]
    file = tmp_path / name if content is None else put(tmp_path, name, content)
    with pytest.raises(DataError) as said:
        list(open_pool(file).texts())
    assert message in said.value.message and hint in said.value.hint


def test_bad_arrays_are_told_in_a_sentence(tmp_path):
    def refused(message: str, **arrays: np.ndarray) -> None:
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(DataError, match=message):
            list(Arrays(tmp_path / "bad.npz").batches(8))

    refused("lacks `images`", labels=np.arange(3))
    refused("not numbers", images=np.array(["a", "b"]))
    refused("Python objects, which are never read", images=np.array([{}, []], dtype=object))
    refused("holds no examples", images=np.zeros((0, 2)))
    refused("`labels` in .* of shape", images=np.zeros((3, 2)), labels=np.arange(2))
    refused("NaN or infinity", images=np.array([[0.0, np.nan]]))
    put(tmp_path, "no.npz", "text")
    with pytest.raises(DataError, match=r"cannot be read as an \.npz"):
        Arrays(tmp_path / "no.npz")
    whole = tmp_path / "whole.npz"
    np.savez(whole, images=np.zeros((300, 8, 8)))
    put(tmp_path, "torn.npz", whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cannot be read as an \.npz"):
        Arrays(tmp_path / "torn.npz")


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path, monkeypatch):
    pool = open_pool(put(tmp_path, "pool.jsonl", "".join(json.dumps({"text": "x" * i}) + "\n" for i in range(1, 9))))
    monkeypatch.setattr("secateur.model.pool.tables.lines", lambda path: iter(['{"text": "one"}\n', "{"]))
    with pytest.raises(DataError):
        pool.write([0, 1], tmp_path / "out" / "pool.jsonl")
    assert list((tmp_path / "out").iterdir()) == []
