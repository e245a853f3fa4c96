"""Rows of a table: of .jsonl, .csv and .tsv as they stand in the file, of .parquet with its own schema."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from secateur.model.disk import atomic
from secateur.model.pool.files import lines, writing
from secateur.model.text import json_rows, text_column
from secateur.types import DataError

#: what stands in the file, line end and all, and what it says; nothing is said by a heading
Row = tuple[str, Mapping[str, Any] | None]


class Table:
    """A table with a column of text: `text`, `content`, or the only one that holds any."""

    each = "row"

    def __init__(self, path: Path, kind: str):
        self.path, self.name, self.kind = path, str(path), kind
        self.column = text_column(path, (row for _, row in self._rows() if row is not None))[0]
        self.taken = f"rows, by their column `{self.column}`"

    @cached_property
    def _count(self) -> int:
        return sum(row is not None for _, row in self._rows())

    def __len__(self) -> int:
        return self._count

    def texts(self) -> Iterator[tuple[int, str]]:
        """Rows that have text, by their number in the table."""
        for at, row in enumerate(row for _, row in self._rows() if row is not None):
            text = str(row.get(self.column) or "")
            if text.strip():
                yield at, text

    def beside(self, name: str) -> list[Any]:
        """What every row has under a name."""
        known: set[str] = set()
        told = []
        for row in (row for _, row in self._rows() if row is not None):
            known |= row.keys()
            told.append(row.get(name))
        if name not in known:
            raise DataError(f"{self.path} has no column `{name}`", f"its columns are {', '.join(sorted(known))}")
        return told

    def write(self, chosen: Sequence[int], to: Path) -> None:
        """The chosen rows as they stand in the file, under the heading if it has one."""
        if self.kind == ".parquet":
            _write_parquet(self.path, set(chosen), to)
            return
        wanted, at = set(chosen), -1
        with writing(to) as put:
            for raw, row in self._rows():
                at += row is not None
                if row is None or at in wanted:
                    put(raw if raw.endswith("\n") else raw + "\n")

    def _rows(self) -> Iterator[Row]:
        if self.kind == ".parquet":
            return _parquet(self.path)
        if self.kind == ".jsonl":
            return json_rows(lines(self.path), self.path)
        return _separated(self.path, "\t" if self.kind == ".tsv" else ",")


def _separated(path: Path, between: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    raw: list[str] = []  # of the record that is being read: it may have line ends inside quotes

    def fed() -> Iterator[str]:
        for line in lines(path):
            raw.append(line)
            yield line

    heading: list[str] | None = None
    for cells in csv.reader(fed(), delimiter=between):
        told = "".join(raw)
        raw.clear()
        if heading is None and cells:
            heading = cells
            yield told, None
        elif cells:
            yield told, dict(zip(heading or (), cells, strict=False))


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowInvalid

    try:
        for batch in _open(path).iter_batches(256):
            for row in batch.to_pylist():
                yield "", row
    except ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file ({error})", "download or write it again") from None


def _open(path: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise DataError(f"reading {path} needs pyarrow", "pip install pyarrow") from None
    try:
        return parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file ({error})", "download or write it again") from None


def _write_parquet(path: Path, wanted: set[int], to: Path) -> None:
    from pyarrow import parquet

    file = _open(path)
    packed = file.metadata.row_group(0).column(0).compression if file.metadata.num_row_groups else "SNAPPY"
    at = 0
    with atomic(to) as raw, parquet.ParquetWriter(raw, file.schema_arrow, compression=packed) as out:
        for batch in file.iter_batches(1024):
            mine = [i for i in range(len(batch)) if at + i in wanted]
            if mine:
                out.write_batch(batch.take(mine))
            at += len(batch)
