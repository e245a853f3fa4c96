"""A file of examples to choose from: read one by one, and the chosen ones written back as they came in.

    pool = open_pool("questions.csv")
    [text for _, text in pool.texts()]
    pool.write([0, 2, 5], Path("out/questions.csv"))

Examples are documents of a text file, rows of a table (.jsonl, .csv, .tsv, .parquet; all but the last also as .gz), or
what an .npz holds along the first axis of its arrays. What stands around an example (quotes, order of keys, other
columns, the type of a column) is written as it was read. Memory holds a piece of the file at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from secateur.model.pool.separators import WAYS
from secateur.types import DataError

#: what ends in this is read as a table
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")


class Pool(Protocol):
    """Examples in the order of their file, numbered from 0."""

    name: str
    #: what one of them is called: "document", "line", "row", "example"
    each: str
    #: how the file was understood, in words
    taken: str

    def __len__(self) -> int: ...
    def beside(self, name: str) -> list[Any]:
        """What stands beside the examples under a name, of each."""
        ...

    def write(self, chosen: Sequence[int], to: Path) -> None:
        """The chosen examples, in their old order, whole or not at all."""
        ...


class Texts(Pool, Protocol):
    """Examples that are text; those without any are passed over, and keep their numbers."""

    def texts(self) -> Iterator[tuple[int, str]]: ...


def open_pool(name: str | Path, documents: str | None = None) -> Texts:
    """A file of texts; `documents` says what lies between two of a text file (`separators.WAYS`), if not said the file
    itself does. DataError where it holds none."""
    from secateur.model.pool.tables import Table
    from secateur.model.pool.texts import Documents

    path = Path(name).expanduser()
    _check(path, name)
    kind = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if documents is not None and documents not in WAYS:
        raise DataError(f"documents cannot be told apart by `{documents}`", f"there are {', '.join(WAYS)}")
    if kind in TABLES and documents is not None:
        raise DataError(f"the rows of {path} are its documents", "leave --documents out")
    return Table(path, kind) if kind in TABLES else Documents(path, documents)


def _check(path: Path, name: str | Path) -> None:
    if str(name).startswith("hf:"):
        raise DataError(f"{name} lies on the hub, and what is chosen is written as it lies in a file", "download it")
    if not path.exists():
        raise DataError(f"there is no file {path}", "give a text file, .jsonl, .csv, .parquet, or an .npz")
    if path.is_dir():
        raise DataError(f"{path} is a folder, and examples are chosen from one file", "put them into one .jsonl")
    if path.suffix.lower() == ".npz":
        raise DataError(f"{path} holds arrays, and a language model reads text", "give text, or an image model")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "give a file with some examples")
