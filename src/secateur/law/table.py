"""Tables that laws are fitted to: read from .csv, .csv.gz or .parquet, and chosen from by conditions in words."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.parts.laws import amount, counted
from secateur.types import DataError, SecateurError

_SIGNS = {"<=": np.less_equal, ">=": np.greater_equal, "!=": np.not_equal, "<": np.less, ">": np.greater, "=": np.equal}
#: of the rows, how many at least are held back when nobody says which
SHARE = 0.15


@dataclass(frozen=True)
class Table:
    """Columns of numbers by name, and which run each row belongs to where a column `run` tells."""

    columns: Mapping[str, NDArray[np.float64]]
    runs: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def of(self, chosen: NDArray[np.bool_]) -> Table:
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Table(columns, None if self.runs is None else self.runs[chosen])

    def where(self, words: str) -> Table:
        """The rows for which all conditions hold; a DataError where none is left."""
        tests = [self._test(part) for part in _parts(words)]
        left = self.of(np.logical_and.reduce(tests))
        if not len(left):
            raise DataError(f"no row of the table has {words}", "loosen the conditions of --where")
        return left

    def back(self, words: str | None) -> tuple[NDArray[np.bool_], str]:
        """Which rows are held back, and in words which those are: a column (its largest values), or conditions of which
        any may hold; the largest models, or the longest trainings where there are few sizes, if nothing is said."""
        if words is None:
            sizes, lengths = (len(set(self.columns.get(name, np.empty(0)).tolist())) for name in ("params", "tokens"))
            words = "params" if sizes >= 5 or lengths < 3 else "tokens"
        if words.strip() not in self.columns:
            back = np.logical_or.reduce([self._test(part) for part in _parts(words)])
            told = words.strip()
        else:
            column = self.columns[words.strip()]
            least = next(v for v in sorted(set(column.tolist()), reverse=True) if (column >= v).mean() >= SHARE)
            back, told = column >= least, f"{words.strip()} >= {counted(least)}"
        if not back.any() or back.all():
            raise DataError(
                f"{told} holds back {int(back.sum())} of {len(self)} rows", "hold back some, not all: --hold-out params"
            )
        return back, told

    def _test(self, words: str) -> NDArray[np.bool_]:
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=|!=|=|<|>)=?\s*(\S+)\s*", words)
        if not found:
            raise SecateurError(
                f"cannot read the condition `{words.strip()}`",
                'write it like "params > 6.9B", "bits = 3" or, held back, "params"',
            )
        name, sign, value = found.groups()
        if name not in self.columns:
            raise DataError(f"the table has no column of numbers `{name}`", f"it has {', '.join(self.columns)}")
        return _SIGNS[sign](self.columns[name], amount(value))


def _parts(words: str) -> list[str]:
    return [part for part in words.split(",") if part.strip()]


def read(path: str | Path) -> Table:
    """A table from a file; columns that hold words are left out, but for `run`."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"there is no table {file}", "give a .csv, .csv.gz or .parquet with a header")
    name = file.name.lower()
    if name.endswith(".parquet"):
        return of(_parquet(file))
    if not name.endswith((".csv", ".csv.gz")):
        raise DataError(f"cannot read {file} as a table", "give a .csv, .csv.gz or .parquet with a header")
    try:
        with (
            gzip.open(file, "rt", newline="", encoding="utf-8")
            if name.endswith(".gz")
            else file.open(newline="", encoding="utf-8") as lines
        ):
            rows = list(csv.reader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {file}: {error}", "is it a table with commas between, in UTF-8?") from None
    if len(rows) < 2:
        raise DataError(f"{file} holds no rows", "a table has a header and a row for each model")
    head = [word.strip() for word in rows[0]]
    whole = [row + [""] * (len(head) - len(row)) for row in rows[1:] if any(row)]
    return of({title: [row[at] for row in whole] for at, title in enumerate(head)})


def of(columns: Mapping[str, Iterable[Any]]) -> Table:
    """A table of columns as one has them: numbers, or words that spell some."""
    numbers, runs = {}, None
    for name, cells in columns.items():
        column = list(cells)
        if name == "run":
            runs = np.array([str(cell) for cell in column])
            continue
        try:
            numbers[name] = np.array([_number(cell) for cell in column], dtype=float)
        except (SecateurError, TypeError, ValueError):
            continue
    lengths = {len(column) for column in numbers.values()}
    if len(lengths) > 1:
        raise DataError("the columns of the table are not equally long", "give every column a value for each row")
    return Table(numbers, runs)


def _number(cell: Any) -> float:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return amount(cell)


def _parquet(file: Path) -> Mapping[str, Iterable[Any]]:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(file).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {file}: {error}", "is it a .parquet file?") from None
