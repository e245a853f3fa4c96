"""Rows of finished benches as a dated CSV: `PYTHONPATH=src:benchmarks python benchmarks/rivals/benched.py OUT ...`.

Each OUT is the folder of a `secateur bench MODEL ... -o OUT`; its rows go into benchmarks/bench.csv, in place of those
of the same contestant, model, format and budget. `kv` is bytes of keys and values a token; `kl_more` is against the
first contestant at the same budget, window by window, with the 95% interval of its mean; seconds are taken beside
other work.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness import ROOT, stamp, write_rows

TABLE = ROOT / "benchmarks" / "bench.csv"
FIGURES = ("bytes", "bits_per_weight", "flops", "kv", "kl", "rise", "agreement", "kl_more", "rise_more", "seconds")


def rows(out: Path) -> list[dict[str, Any]]:
    """One row for everybody who was measured."""
    found = json.loads((out / "bench.json").read_text())
    about = {"model": Path(found["model"]).name, "data": Path(found["text"] or found["data"]).name}
    told = []
    for row in (row for row in found["rows"] if row["kl"] is not None):
        known: dict[str, Any] = {**about, "format": found["format"], "contestant": row["contestant"]}
        known |= {"version": row["version"], "asked": row["asked"], "budget": row["budget"]}
        for name in FIGURES:
            known[name] = _short(row.get(name))
            if f"{name}_interval" in row:
                low, high = row[f"{name}_interval"] or (None, None)
                known |= {f"{name}_low": _short(low), f"{name}_high": _short(high)}
        told.append(known | stamp())
    return told


def _short(value: float | None) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for folder in sys.argv[1:]:
        write_rows(TABLE, rows(Path(folder)), key=("model", "format", "contestant", "budget"))
