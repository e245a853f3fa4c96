"""What every claim shares: seeds, paired bootstrap intervals, machine and commit, one JSON line, one row in a CSV.

A claim is one file in `benchmarks/claims/` that asks one question and answers it in a minute on two cores:

    def trial(seed: int) -> tuple[float, float]:
        return ours, baseline                      # the same measurement, the same budget, the same seed

    if __name__ == "__main__":
        harness.claim("gptq", "rounds better than nearest at the same bits", trial, seeds=5)

Run it from the root of the repository: `PYTHONPATH=src python -m benchmarks.claims.gptq`.
"""

from __future__ import annotations

import csv
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "benchmarks" / "claims.csv"
Trial = Callable[[int], tuple[float, float]]


def bootstrap(differences: Sequence[float], level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
    """The interval of the mean of paired differences: percentiles of resampled means, always with the same draws."""
    x = np.asarray(differences, dtype=float)
    means = x[np.random.default_rng(0).integers(len(x), size=(draws, len(x)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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


def claim(
    slug: str,
    text: str,
    trial: Trial,
    seeds: int | Sequence[int] = 5,
    measure: str = "ratio",
    better: str = "lower",
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run `trial` on every seed, print one JSON object on stdout, and write its row into `benchmarks/claims.csv`.

    `about` carries what else the reader should know (sizes, budgets, further numbers); it is read after the last trial,
    so a trial may write into it, and it is printed, not tabulated.
    """
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    start, pairs = time.perf_counter(), []
    for seed in seeds:
        pairs.append(tuple(map(float, trial(seed))))
        print(f"{slug} seed {seed}: {pairs[-1][0]:.6g} against {pairs[-1][1]:.6g}", file=sys.stderr)
    out: dict[str, Any] = {"slug": slug, "claim": text, "measure": measure, "better": better}
    out |= judge(pairs, measure, better)
    out |= {"seeds": len(pairs), "pairs": pairs, "seconds": round(time.perf_counter() - start, 1)} | stamp()
    out |= {"about": dict(about)} if about else {}
    print(json.dumps(out))
    low, high = out["interval"]
    row = {"slug": slug, "claim": text, "measure": measure, "better": better, "effect": f"{out['effect']:.4g}"}
    row |= {"low": f"{low:.4g}", "high": f"{high:.4g}"}
    row |= {key: out[key] for key in ("verdict", "seeds", "seconds", "date", "commit", "machine")}
    write_rows(CLAIMS, [row], key=("slug", "claim"))
    return out


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


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], key: Sequence[str] = ()) -> None:
    """Put rows into a CSV in place of those that agree in the `key` columns (no key: of all); never half a file."""
    old: list[Mapping[str, Any]] = []
    if key and path.exists():
        new = {tuple(str(row[k]) for k in key) for row in rows}
        with path.open(newline="") as file:
            old = [row for row in csv.DictReader(file) if tuple(row.get(k, "") for k in key) not in new]
    merged = [*old, *rows]
    columns = list(dict.fromkeys(column for row in merged for column in row))
    if key:
        merged.sort(key=lambda row: tuple(str(row[k]) for k in key))
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(merged)
    os.replace(part, path)
