"""What every claim shares: seeds, paired bootstrap intervals, machine and commit, one JSON line, one row in a CSV.

A claim is one file in `benchmarks/claims/` that puts one question, or a few, and answers them in a few minutes:

    def trial(seed: int) -> tuple[float, float]:
        return ours, baseline                      # the same measurement, the same budget, the same seed

    if __name__ == "__main__":
        harness.claim("gptq", "rounds better than nearest at the same bits", trial, seeds=5)

The first question of a file is the main one. Run a file from the root of the repository, `PYTHONPATH=src python -m
benchmarks.claims.gptq`: its row goes into `benchmarks/claims.csv` and the table in the method's card is written anew.
`make claims` runs all files (`benchmarks/claims/__main__.py`); it tells them through the environment, `ASKED`, which
questions to put and how many seeds to take, and gathers the answers itself.
"""

from __future__ import annotations

import csv
import datetime
import fcntl
import io
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.maths.bootstrap import bootstrap

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "benchmarks" / "claims.csv"
CARDS = ROOT / "docs" / "methods"
Trial = Callable[[int], tuple[float, float]]


def judge(pairs: Sequence[tuple[float, float]], measure: str = "ratio", better: str = "lower") -> dict[str, Any]:
    """Effect, interval and verdict of `(ours, baseline)` pairs.

    `ratio` is the geometric mean of ours / baseline (no effect is 1), `difference` the mean of ours - baseline (no
    effect is 0). `holds` when the whole interval lies on the better side, `does not hold` when it lies on the worse.
    """
    ours, baseline = np.asarray(pairs, dtype=float).T
    if measure == "ratio" and not (ours.min() > 0 and baseline.min() > 0):
        raise ValueError("a ratio needs positive measurements: use measure='difference'")
    x = np.log(ours / baseline) if measure == "ratio" else ours - baseline
    back = math.exp if measure == "ratio" else float
    low, high = bootstrap(x.tolist())
    wins, loses = (high < 0, low > 0) if better == "lower" else (low > 0, high < 0)
    verdict = "holds" if wins else "does not hold" if loses else "tie"
    return {"effect": back(x.mean()), "interval": [back(low), back(high)], "verdict": verdict}


@dataclass(frozen=True)
class Asked:
    """What a file of claims is asked for: all of it, or some questions with some seeds; and who keeps the answers."""

    claims: tuple[str, ...] | None = None
    seeds: int | None = None
    keep: bool = True

    def spoken(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def heard(cls) -> Asked:
        said = json.loads(os.environ.get("ASKED", "{}"))
        return cls(**said | ({"claims": tuple(said["claims"])} if said.get("claims") else {}))


def claim(
    slug: str,
    text: str,
    trial: Trial,
    seeds: int | Sequence[int] = 5,
    measure: str = "ratio",
    better: str = "lower",
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run `trial` on every seed, print one JSON object on stdout, and keep its row; nothing if it is not asked for.

    `about` carries what else the reader should know (sizes, budgets, further numbers); it is read after the last trial,
    so a trial may write into it, and it is printed, not tabulated.
    """
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen:
        raise SystemExit(f"the claim `{text}` of {slug} has no seed: give `seeds=5`, or a list of seeds")
    asked = Asked.heard()
    if asked.claims is not None and text not in asked.claims:
        return {}
    start, pairs = time.process_time(), []  # of this process alone: other work on the machine does not count
    for seed in chosen[: asked.seeds]:
        pairs.append(tuple(map(float, trial(seed))))
        print(f"{slug} seed {seed}: {pairs[-1][0]:.6g} against {pairs[-1][1]:.6g}", file=sys.stderr)
    out: dict[str, Any] = {"slug": slug, "claim": text, "measure": measure, "better": better}
    out |= judge(pairs, measure, better)
    out |= {"seeds": len(pairs), "pairs": pairs, "seconds": round(time.process_time() - start, 1)} | stamp()
    out |= {"about": dict(about)} if about else {}
    print(json.dumps(out), flush=True)
    if asked.keep:
        keep([out])
    return out


def row(out: Mapping[str, Any]) -> dict[str, str]:
    """A claim's answer as a line of the CSV."""
    low, high = out["interval"]
    found = {key: str(out[key]) for key in ("slug", "claim", "measure", "better")}
    found |= {"effect": f"{out['effect']:.4g}", "low": f"{low:.4g}", "high": f"{high:.4g}"}
    return found | {key: str(out[key]) for key in ("verdict", "seeds", "seconds", "date", "commit", "machine")}


def keep(answers: Sequence[Mapping[str, Any]], whole: bool = False) -> None:
    """Put answers of one method into `claims.csv` and the table of its card; `whole`: they are all that it has."""
    (slug,) = {out["slug"] for out in answers}
    write_rows(CLAIMS, [row(out) for out in answers], key=("slug",) if whole else ("slug", "claim"), order=("slug",))
    render(slug)


def render(slug: str) -> bool:
    """Write the table of a method's card anew from `claims.csv`; says whether the card has changed."""
    from secateur.evidence import claims, with_table

    card, rows = CARDS / f"{slug}.md", claims(CLAIMS).get(slug)
    if rows is None or not card.is_file():
        return False
    before = card.read_text(encoding="utf-8")
    after = with_table(before, rows)
    if after != before:
        _put(card, after)
    return after != before


def stamp() -> dict[str, str]:
    """Where a number comes from: date, commit and machine."""
    return {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}


def commit() -> str:
    """The commit, with `+` when the sources differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(("git", *words), cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--", "src") else "")


def machine() -> str:
    """Processor, cores and Python, in one line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], key: Sequence[str] = (), order: Sequence[str] | None = None
) -> None:
    """Put rows into a CSV in place of those that agree in the `key` columns (no key: of all); never half a file.

    They are sorted by `order`, if not said by the key; rows that agree in it stand as they came, old ones in their old
    places. Processes that write at the same time wait for each other.
    """
    with _alone(path):
        old: list[Mapping[str, Any]] = []
        if key and path.exists():
            with path.open(newline="") as file:
                old = list(csv.DictReader(file))
        fresh: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in rows:
            fresh.setdefault(tuple(str(row[k]) for k in key), []).append(row)
        given, merged = set(fresh), []
        for row in old:
            mine = tuple(row.get(k, "") for k in key)
            merged += fresh.pop(mine, []) if mine in given else [row]
        merged += [row for some in fresh.values() for row in some]
        columns = list(dict.fromkeys(column for row in merged for column in row))
        if key:
            merged.sort(key=lambda row: tuple(str(row[k]) for k in (key if order is None else order)))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(merged)
        _put(path, text.getvalue())


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else who asks writes into this folder meanwhile."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _put(path: Path, text: str) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
