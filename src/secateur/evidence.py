"""What was measured of each method: its claims, one dated row each, and its card.

A checkout has them in `benchmarks/claims.csv` and `docs/methods/`; the wheel carries copies under `secateur/shelf/`
(pyproject.toml, `force-include`), so an installed Secateur tells the same. No torch here, and no numpy.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

HERE = Path(__file__).parent
#: where the table of a card begins and ends; what lies between is written by `make claims`
BEGIN, END = "<!-- claims: written by `make claims` -->", "<!-- end of claims -->"
_VERDICTS = {"holds": "holds", "tie": "tie", "does not hold": "does not hold at this scale"}


@dataclass(frozen=True)
class Claim:
    """One question that was put to a method. `effect` is ours over the baseline's (`ratio`) or ours minus it
    (`difference`), with its 95% interval over the seeds; `better` says in which direction it is meant to go."""

    slug: str
    claim: str
    measure: str
    better: str
    effect: float
    low: float
    high: float
    verdict: str
    seeds: int
    seconds: float
    date: str
    commit: str
    machine: str

    @property
    def said(self) -> str:
        """The verdict in words; never more than was seen."""
        return _VERDICTS[self.verdict]

    @property
    def number(self) -> str:
        """The effect with its interval: `0.641 [0.638, 0.643]`."""
        form = "#.4g" if abs(self.effect - 1) < 0.02 else "#.3g"  # so that one per thousand can be seen
        return f"{self.effect:{form}} [{self.low:{form}}, {self.high:{form}}]"


def shelf(path: str, packaged: str) -> Path:
    """A file or folder that lies in the checkout under `path` and in the wheel under `shelf/<packaged>`."""
    inside = HERE / "shelf" / packaged
    return inside if inside.exists() else HERE.parent.parent / path


def claims(file: Path | None = None) -> dict[str, list[Claim]]:
    """All measured claims by the method's slug, in the order in which they are asked; the first is the main one."""
    file = file or shelf("benchmarks/claims.csv", "claims.csv")
    found: dict[str, list[Claim]] = {}
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                found.setdefault(row["slug"], []).append(_claim(row))
    return found


def _claim(row: dict[str, str]) -> Claim:
    shapes = {"seeds": int, **dict.fromkeys(("effect", "low", "high", "seconds"), float)}
    return Claim(**{field.name: shapes.get(field.name, str)(row[field.name]) for field in fields(Claim)})


def card(slug: str) -> str:
    """The text of a method's card without the table of its claims, which are told from the file they come from."""
    file = shelf(f"docs/methods/{slug}.md", f"methods/{slug}.md")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return re.sub(rf"{re.escape(BEGIN)}.*{re.escape(END)}\n\n?", "", text, flags=re.DOTALL)


def tally(rows: Sequence[Claim]) -> str:
    """How many of a method's claims hold, in the order of good news: `9 hold, 1 tie`."""
    words = {"holds": ("holds", "hold"), "tie": ("tie", "ties")}
    words["does not hold"] = ("does not hold", "do not hold")
    counted = [(sum(row.verdict == verdict for row in rows), forms) for verdict, forms in words.items()]
    if len(rows) == 1:
        return rows[0].verdict
    return ", ".join(f"{n} {forms[n > 1]}" for n, forms in counted if n)


def table(rows: Iterable[Claim]) -> str:
    """The claims of one method as the table that stands in its card."""
    rows = list(rows)
    head = "| claim | effect | verdict | seeds | measured |\n|---|---|---|---|---|\n"
    lines = [
        f"| {row.claim.replace('|', '/')} | {row.number} | {row.said} | {row.seeds} | {row.date}, `{row.commit}` |"
        for row in rows
    ]
    ratio = "a ratio is ours over the baseline's (1: no effect)"
    difference = "a difference is ours minus the baseline's (0: no effect)"
    said = [
        text for kind, text in (("ratio", ratio), ("difference", difference)) if any(r.measure == kind for r in rows)
    ]
    machines = "; ".join(dict.fromkeys(row.machine for row in rows))
    note = f"Effect: {', '.join(said)}, with the 95% bootstrap interval over seeds, paired. {machines}."
    return f"{head}{chr(10).join(lines)}\n\n{note}\n"


def with_table(card: str, rows: Iterable[Claim]) -> str:
    """A card with the table of its claims put in place of the one it had; a card without any gets it in the middle of
    things: before the paragraph on what differs from the paper, or at its end."""
    block = f"{BEGIN}\n{table(rows)}{END}\n"
    if BEGIN in card and END in card:
        before, _, rest = card.partition(BEGIN)
        return before + block + rest.partition(END)[2].removeprefix("\n")
    before, differs, after = card.partition("**What differs")
    return f"{before.rstrip()}\n\n{block}" + (f"\n{differs}{after}" if differs else "")
