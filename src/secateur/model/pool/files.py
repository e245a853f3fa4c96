"""Text files in blocks, packed or not, and the same written: whole or not at all, and the same bytes every time."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.model.disk import atomic
from secateur.types import DataError

BLOCK = 1 << 20


def blocks(path: Path) -> Iterator[str]:
    """A text file a megabyte at a time, line ends as they are, checked to be text in UTF-8."""
    decode = codecs.getincrementaldecoder("utf-8-sig")()
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as file:
            while block := file.read(BLOCK):
                if b"\0" in block:
                    raise DataError(f"{path} is a binary file, not text", "give a text file in UTF-8")
                yield decode.decode(block)
        yield decode.decode(b"", final=True)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path} is not text in UTF-8 ({error})", "give a text file, or convert it to UTF-8") from None


def lines(path: Path) -> Iterator[str]:
    """Its lines, each with its end."""
    rest = ""
    for block in blocks(path):
        *whole, rest = (rest + block).split("\n")
        yield from (line + "\n" for line in whole)
    if rest:
        yield rest


@contextmanager
def writing(path: Path) -> Iterator[Callable[[str], object]]:
    """A function that appends text to a file, which is there when the block has ended well."""
    with atomic(path) as raw:
        if path.suffix.lower() != ".gz":
            yield lambda text: raw.write(text.encode())
            return
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:  # no name, no time
            yield lambda text: packed.write(text.encode())
