"""Documents of a text file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from secateur.model.pool.files import blocks, writing
from secateur.model.pool.separators import LOOKED_AT, WAYS, guess, parted
from secateur.types import DataError


class Documents:
    """The documents of a text file; pieces without a word in them are none, and have no number."""

    def __init__(self, path: Path, way: str | None = None):
        self.path, self.name = path, str(path)
        beginning = "".join(islice(blocks(path), 1 + LOOKED_AT // (1 << 20)))[:LOOKED_AT]
        self.way = WAYS[way or guess(beginning)]
        self.each = self.way.each
        self.taken = f"{self.each}s, told apart by {self.way.said}"

    @cached_property
    def _count(self) -> int:
        return sum(1 for _ in self.texts())

    def __len__(self) -> int:
        return self._count

    def texts(self) -> Iterator[tuple[int, str]]:
        """The documents and their numbers; DataError where there are none."""
        at = -1
        for at, (text, _) in enumerate(self._pieces()):
            yield at, text
        if at < 0:
            raise DataError(f"{self.path} holds no text", "give a file with some")

    def _pieces(self) -> Iterator[tuple[str, str]]:
        return (piece for piece in parted(blocks(self.path), self.way) if piece[0].strip())

    def beside(self, name: str) -> list[Any]:
        """A text file has no columns."""
        raise DataError(f"{self.path} has no column `{name}`: it is a text", "give a table: .jsonl, .csv, .parquet")

    def write(self, chosen: Sequence[int], to: Path) -> None:
        """Each with what lies behind it; the last of the file, behind which may be nothing, gets what was before it."""
        wanted, usual = set(chosen), ""
        with writing(to) as put:
            for at, (text, behind) in enumerate(self._pieces()):
                usual = behind or usual
                if at in wanted:
                    put(text + (behind or usual or "\n"))
