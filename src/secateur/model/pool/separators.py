"""What lies between two documents of a text file: a form feed, two empty lines or more, an empty line, or a line's end.

The widest that the beginning of a file has is taken, as far as documents do not become monsters by it: a list of ten
thousand lines is not three documents because there are two empty lines somewhere in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: characters that are looked at
LOOKED_AT = 1 << 20


@dataclass(frozen=True)
class Way:
    """One way to part a text, taken where it makes `least` documents of at most `most` lines on the mean, not counting
    empty ones."""

    said: str
    each: str
    pattern: re.Pattern[str]
    most: float
    least: int = 2


#: by name, the widest first
WAYS = {
    "page": Way("form feeds", "document", re.compile(r"(?:\r?\n)?\f(?:\r?\n)?"), float("inf")),
    "blanks": Way("two empty lines or more", "document", re.compile(r"\r?\n(?:[ \t\r]*\n){2,}"), 500, 3),
    "blank": Way("empty lines", "document", re.compile(r"\r?\n(?:[ \t\r]*\n)+"), 100),
    "line": Way("line ends", "line", re.compile(r"\r?\n"), float("inf")),
}


def guess(beginning: str) -> str:
    """The name of the way that the beginning of a file speaks for.

    >>> guess("a\\nb\\nc\\n"), guess("a\\nb\\n\\nc\\nd\\n\\ne\\n"), guess("a\\n\\f\\nb\\n")
    ('line', 'blank', 'page')
    """
    lines = sum(1 for line in beginning.split("\n") if line.strip())
    for name, way in WAYS.items():
        found = sum(1 for part in way.pattern.split(beginning) if part.strip())
        if found >= way.least and lines <= way.most * found:
            return name
    return "line"


def parted(blocks: Iterable[str], way: Way) -> Iterator[tuple[str, str]]:
    """Documents and what lies behind each, from a text that comes in blocks: put together they are the text."""
    rest = ""
    for block in blocks:
        rest += block
        at, sure = 0, len(rest.rstrip(" \t\r\n"))
        for found in way.pattern.finditer(rest):
            if found.end() >= sure:
                break  # it may go on in the next block
            yield rest[at : found.start()], found[0]
            at = found.end()
        rest = rest[at:]
    at = 0
    for found in way.pattern.finditer(rest):
        yield rest[at : found.start()], found[0]
        at = found.end()
    if rest[at:]:
        yield rest[at:], ""
