"""What a survey of all kinds of edits costs, against one of bits alone: CPU seconds, both in turn in one process.

    PYTHONPATH=src:benchmarks OMP_NUM_THREADS=1 python benchmarks/survey_cost.py
    PYTHONPATH=src:benchmarks OMP_NUM_THREADS=1 python benchmarks/survey_cost.py --models stories260k --tries 3

`--edits bits` and `--edits all`, from the same 128 windows, nothing kept from one to the next; seconds are user and
system time of this process (`getrusage`), so that other work on the machine counts little. A short survey goes before,
to load what is loaded once. Rows go into benchmarks/survey_cost.csv: the least of the tries, and the ratio of the two
sums over all tries. A quarter of an hour of one free core.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

from harness import ROOT, stamp, write_rows

from secateur.cut import survey

TABLE = ROOT / "benchmarks" / "survey_cost.csv"
SHARED = ROOT.parent / "shared"
#: by model: the text that it was trained on
MODELS = {"stories260k": "data/stories.txt", "lm-small": "data/lm/calib.txt"}


def cpu() -> float:
    """Seconds that this process has computed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def surveyed(model: str, format: str, edits: str, **how: Any) -> dict[str, float]:
    """What one survey takes, and what it offers."""
    begun, wall = cpu(), time.time()
    menu = survey(str(SHARED / "models" / model), str(SHARED / MODELS[model]), format=format, edits=edits, **how)
    return {"cpu": cpu() - begun, "wall": time.time() - wall, "rows": len(menu.units), "edits": len(menu.edits)}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--models", default=",".join(MODELS))
    asked.add_argument("--formats", default="packed,compressed-tensors")
    asked.add_argument("--tries", type=int, default=2)
    words = asked.parse_args()
    for model in words.models.split(","):
        for format in words.formats.split(","):
            surveyed(model, format, "bits", samples=8)
            found: dict[str, list[dict[str, float]]] = {"bits": [], "all": []}
            for _ in range(words.tries):
                for edits in found:
                    found[edits].append(surveyed(model, format, edits))
                    print(model, format, edits, found[edits][-1], flush=True)
            bits, all_ = (sum(one["cpu"] for one in tries) for tries in found.values())
            rows = [
                {"model": model, "format": format, "edits": edits, "tries": words.tries,
                 "cpu_seconds": f"{min(one['cpu'] for one in tries):.1f}",
                 "wall_seconds": f"{min(one['wall'] for one in tries):.1f}",
                 "rows": tries[0]["rows"], "choices": tries[0]["edits"],
                 "ratio": f"{all_ / bits:.2f}" if edits == "all" else "", **stamp()}
                for edits, tries in found.items()
            ]  # fmt: skip
            write_rows(TABLE, rows, key=("model", "format", "edits"))


if __name__ == "__main__":
    main()
