"""All claims, measured anew, each file in a process of its own, as many at once as there are cores.

    PYTHONPATH=src python -m benchmarks.claims [SLUG ...]      # rows in claims.csv, tables in the cards
    PYTHONPATH=src python -m benchmarks.claims --today         # a few, in turn by the date, held against their rows
    PYTHONPATH=src python -m benchmarks.claims --cards         # the tables alone, from the rows there are

The day's turn is for CI: the list of all claims begins with the one whose number is the date's and goes on as long as
time is left, by what each took before, with two seeds each. It writes nothing. It fails when a claim cannot be run any
more; one that held and comes out wholly on the other side is told: then measure it anew, and change its card.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Asked

from benchmarks import harness
from secateur.catalogue import nearest
from secateur.evidence import Claim, claims

HERE = Path(__file__).parent
#: seeds of a claim in the day's turn, and what a process takes before its first one
SEEDS, START = 2, 20.0


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 when something went wrong."""
    asked = _arguments(words)
    known = slugs(asked.slugs)
    if asked.cards:
        changed = [slug for slug in known if harness.render(slug)]
        print(f"{len(changed)} of {len(known)} cards were written anew{': ' * bool(changed)}{', '.join(changed)}")
        return 0
    if lacking := without_a_row(known) if asked.today else ():
        print(f"error: {', '.join(lacking)}: no row in {harness.CLAIMS.name}\nhint: make claims", file=sys.stderr)
        return 1
    jobs = {slug: Asked(keep=False) for slug in known}
    if asked.today:
        chosen = turn([row for slug in known for row in claims(harness.CLAIMS)[slug]], asked.seconds * asked.jobs)
        jobs = {slug: Asked(tuple(r.claim for r in rows), SEEDS, False) for slug, rows in by_slug(chosen).items()}
        print(f"today's turn: {len(chosen)} claims of {', '.join(jobs)}", file=sys.stderr)
    return max([_done(slug, *found, asked.today) for slug, *found in run(jobs, asked.jobs)], default=0)


def slugs(named: Iterable[str] = ()) -> list[str]:
    """The methods that have a file of claims; a sentence where a name has none."""
    there = sorted(file.stem for file in HERE.glob("*.py") if not file.name.startswith("_"))
    for name in named:
        if name not in there:
            near = nearest(name, there)
            raise SystemExit(f"there are no claims of `{name}`\nhint: " + (f"`{near}`?" if near else ", ".join(there)))
    return list(named) or there


def without_a_row(known: Iterable[str]) -> list[str]:
    """The methods whose claims were never measured."""
    rows = claims(harness.CLAIMS)
    return [slug for slug in known if slug not in rows]


def turn(rows: Sequence[Claim], seconds: float, day: int | None = None) -> list[Claim]:
    """The claims whose turn it is: from the day's number on, as many as take this long together by their rows. Claims
    of one method may share a training, which is on the row that came first: whichever is first today pays for it."""
    dearest = {row.slug: max(one.seconds for one in rows if one.slug == row.slug) for row in rows}
    start = (datetime.date.today().toordinal() if day is None else day) % len(rows)
    chosen: list[Claim] = []
    for row in [*rows[start:], *rows[:start]]:
        first = row.slug not in {one.slug for one in chosen}
        takes = (dearest[row.slug] if first else row.seconds) / row.seeds * min(row.seeds, SEEDS) + START * first
        if takes <= seconds or not chosen:
            chosen.append(row)
            seconds -= takes
    return chosen


def by_slug(rows: Iterable[Claim]) -> dict[str, list[Claim]]:
    found: dict[str, list[Claim]] = {}
    for row in rows:
        found.setdefault(row.slug, []).append(row)
    return found


def run(jobs: dict[str, Asked], at_once: int) -> Iterable[tuple[str, int, list[dict[str, Any]], float]]:
    """Every file in a process of its own, the longest first: its slug, exit status, answers and seconds."""
    took = {slug: sum(row.seconds for row in rows) for slug, rows in claims(harness.CLAIMS).items()}
    longest_first = sorted(jobs, key=lambda slug: -took.get(slug, float("inf")))
    with ThreadPoolExecutor(at_once) as pool:
        waiting = {pool.submit(_one, slug, jobs[slug]): slug for slug in longest_first}
        for future in as_completed(waiting):
            yield waiting[future], *future.result()


def _one(slug: str, asked: Asked) -> tuple[int, list[dict[str, Any]], float]:
    paths = os.pathsep.join(filter(None, (str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH"))))
    around = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": paths, "ASKED": asked.spoken()}
    begun = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.claims.{slug}"]
    done = subprocess.run(command, cwd=ROOT, env=around, stdout=subprocess.PIPE, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"slug"')]
    return done.returncode, answers, time.perf_counter() - begun


def _done(slug: str, status: int, answers: list[dict[str, Any]], seconds: float, today: bool) -> int:
    """Keep what a file has found, or hold it against what is known; say it in lines; 1 when something is wrong."""
    for one in answers:
        low, high = one["interval"]
        print(f"{slug}: {one['claim']}: {one['effect']:.4g} [{low:.4g}, {high:.4g}], {one['verdict']}")
    wrong = [f"ended with status {status} after {seconds:.0f} s"] if status else []
    wrong += ["it has put no question"] if not answers and not status else []
    if today:
        for why in filter(None, map(contradiction, answers)):  # orderings are told, and gate nothing
            print(f"note: {slug}: {why}: measure it anew, and say in its card what changed", file=sys.stderr)
    elif answers and not status:
        harness.keep(answers, whole=True)
    for why in wrong:
        print(f"error: {slug}: {why}\nhint: python -m benchmarks.claims.{slug}", file=sys.stderr)
    return 1 if wrong else 0


def contradiction(answer: dict[str, Any]) -> str | None:
    """Why an answer cannot stand beside its row: what held before now does not, on each of the day's seeds, or the
    other way round. A tie, then or now, contradicts nothing."""
    was = next((row for row in claims(harness.CLAIMS).get(answer["slug"], ()) if row.claim == answer["claim"]), None)
    if was is None or "tie" in (was.verdict, answer["verdict"]) or was.verdict == answer["verdict"]:
        return None
    return f"`{answer['claim']}` came out at {answer['effect']:.4g}, but its row says {was.number}, {was.verdict}"


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("slugs", nargs="*", help="only these methods")
    asked.add_argument("--today", action="store_true", help="only those whose turn it is; write nothing")
    asked.add_argument("--cards", action="store_true", help="only write the cards' tables")
    asked.add_argument("--seconds", type=float, default=90.0, help="how long the day's turn may take on every core")
    asked.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="files at once")
    return asked.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
