"""Accuracy against FLOPs, nothing trained: our plans and Torch-Pruning's importances on the same networks and pictures.

    python benchmarks/rivals/venvs.py ../venvs torchpruning
    PYTHONPATH=src:benchmarks python benchmarks/curves.py resnet20_jpeg kws_dscnn --seeds 0 1 2 --rival ../venvs
    PYTHONPATH=src:benchmarks python benchmarks/curves.py resnet56
    PYTHONPATH=src:benchmarks python benchmarks/curves.py --draw

Every seed draws its own pictures for calibration. Each point is scored on all test pictures (of the keyword spotter on
half of them, the other half being all there is to calibrate on); `low` and `high` are the 95% interval of its accuracy
over resampled test pictures, `ours_low` and `ours_high` that of how far we are ahead at the same budget and seed, the
same pictures resampled. One survey a network and seed; every plan is taken from its menu and measured as the network in
memory, which an export holds to the last bits. Rows go into benchmarks/resnet56.csv, the figure into
docs/guides/curves.svg.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import ROOT, stamp, write_rows
from vision import files

TABLE, FIGURE = ROOT / "benchmarks" / "resnet56.csv", ROOT / "docs" / "guides" / "curves.svg"
SHARES = (0.8, 0.7, 0.6, 0.5, 0.4)
KEY = ("network", "tool", "method", "budget", "seed")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("networks", nargs="*")
    asked.add_argument("--shares", type=float, nargs="+", default=SHARES)
    asked.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked.add_argument("--samples", type=int, default=1500)
    asked.add_argument("--rival", type=Path, help="the folder with v-torchpruning; without it we run alone")
    asked.add_argument("--python", help="or the interpreter that has it")
    asked.add_argument("--menu", type=Path, help="a survey that is there already, of the one network and seed")
    asked.add_argument("--theirs", type=Path, help="rows that the rival has written already")
    asked.add_argument("--device")
    asked.add_argument("--draw", action="store_true")
    words = asked.parse_args()
    python = words.python or (words.rival and str(words.rival / "v-torchpruning" / "bin" / "python"))
    for network in words.networks:
        for seed in words.seeds:
            with tempfile.TemporaryDirectory() as place:
                theirs = _rival(python, network, words, seed, Path(place)) if python else None
                rows = list(ours(network, words, seed, Path(place)))
                rows += [json.loads(line) for line in theirs.communicate()[0].splitlines()] if theirs else []
                rows += [json.loads(line) for line in words.theirs.read_text().splitlines()] if words.theirs else []
                if theirs and theirs.returncode:
                    raise SystemExit(f"Torch-Pruning failed on {network}, seed {seed}")
            write_rows(TABLE, list(told(rows)), key=KEY)
    if words.draw:
        FIGURE.write_text(drawn(list(csv.DictReader(TABLE.open(newline="")))))


def ours(network: str, words: Any, seed: int, place: Path) -> Iterator[dict[str, Any]]:
    """One survey, then every plan carried out in memory and scored."""
    from secateur.cut import survey

    menu, (model, known, unknown) = words.menu or place / "menu", files(network, place)
    how = {"samples": words.samples, "format": "safetensors", "seed": seed, "device": words.device}
    if not words.menu:
        survey(model, known, out=menu, edits="bits,channels", **how)
    yield from points(network, model, known, unknown, menu, words, seed)


def points(
    network: str, model: str, known: str, unknown: str, folder: Path, words: Any, seed: int
) -> Iterator[dict[str, Any]]:
    """The plans of a menu at all shares, each carried out in memory and scored."""
    from secateur.cut import plan
    from secateur.cut.channels import Groups
    from secateur.cut.kept import stored_factors
    from secateur.cut.opening import open_case
    from secateur.parts.edits.trunks import left_of
    from secateur.parts.menus import load_menu

    menu, kinds = load_menu(folder), ("bits", "channels")
    case = open_case(model, known, str(menu.about["format"]), words.samples, None, seed, words.device, kinds)
    held = [stored_factors(folder / ".work", at, unit) or {} for at, unit in enumerate(case.units)]
    groups = Groups(case, {key: one for found in held for key, one in found.items()})
    x, labels = _pictures(unknown, case)
    plain = _logits(case, x)
    keep = next(edit for edit in menu.edits if str(edit) == "keep()")
    total = sum(case.flops(unit, keep) for unit in case.units)
    plans = plan(menu, [f"{100 * share:g}% flops" for share in words.shares])
    for share, chosen in zip(words.shares, plans, strict=True):
        with case.stream.loaded():
            edits = {unit.name: chosen.edits[unit.name] for unit in groups.units}
            groups.take(edits, widths=left_of(case.trunks, chosen.edits))
            logits = _logits(case, x)
        row = {"network": network, "tool": "secateur", "method": str(chosen.edits.get("trunks", "")), "budget": share}
        row |= {"seed": seed, "flops": chosen.spent["flops"] / total, "kl_predicted": chosen.about["kl_predicted"]}
        yield row | _scored(logits, plain, labels)


def _pictures(file: str, case: Any) -> tuple[torch.Tensor, torch.Tensor]:
    from secateur.model.pictures import read_pictures

    some = read_pictures(file)
    return case.stream.prepare(some.x), some.labels


@torch.no_grad()
def _logits(case: Any, x: torch.Tensor) -> torch.Tensor:
    network = case.stream.network
    return torch.cat([network(x[at : at + 250].to(case.device)).cpu() for at in range(0, len(x), 250)])


def _scored(logits: torch.Tensor, plain: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    right, old, new = logits.argmax(1) == labels, plain.log_softmax(1), logits.log_softmax(1)
    return {
        "accuracy": float(right.double().mean()),
        "accuracy_before": float((plain.argmax(1) == labels).double().mean()),
        "loss": float(torch.nn.functional.cross_entropy(logits, labels)),
        "kl": float((old.exp() * (old - new)).sum(1).mean()),
        "right": "".join("01"[one] for one in right.tolist()),
    }


def _rival(python: str, network: str, words: Any, seed: int, place: Path) -> subprocess.Popen[str]:
    """Torch-Pruning at work beside us, in its own interpreter."""
    model, known, unknown = files(network, place)
    runner = str(Path(__file__).with_name("rivals") / "run_torchpruning.py")
    shares = [str(share) for share in words.shares]
    job = [python, runner, model, "--known", known, "--unknown", unknown, "--shares", *shares]
    job += ["--seed", str(seed), "--samples", str(words.samples), "--name", network]
    return subprocess.Popen(job, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


def told(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows as the table has them: intervals drawn from the pictures that were right, and where they come from."""
    mine = {row["budget"]: _right(row) for row in rows if row["tool"] == "secateur"}
    for row in rows:
        right = _right(row)
        low, high = _interval(right)
        out = {key: row.get(key, "") for key in (*KEY, "version")}
        out |= {"flops": f"{row['flops']:.4f}", "accuracy_before": f"{row['accuracy_before']:.4f}"}
        out |= {"accuracy": f"{row['accuracy']:.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}"}
        rival = row["tool"] != "secateur" and row["budget"] in mine
        ahead = _interval(mine[row["budget"]] - right) if rival else None
        out |= {"ours_low": f"{ahead[0]:.4f}", "ours_high": f"{ahead[1]:.4f}"} if ahead else {}
        out |= {name: f"{row[name]:.4f}" for name in ("loss", "kl", "kl_predicted") if name in row}
        yield out | stamp()


def _right(row: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(row["right"].encode(), np.uint8).astype(float) - ord("0")


def _interval(each: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    at = np.random.default_rng(0).integers(len(each), size=(draws, len(each)))
    low, high = np.quantile(each[at].mean(1), [0.025, 0.975])
    return float(low), float(high)


def drawn(rows: Sequence[Mapping[str, str]]) -> str:
    """Accuracy against FLOPs, a panel a network: ours, and of Torch-Pruning's the best of each point, and all."""
    names = [name for name in ("resnet20_jpeg", "resnet56", "kws_dscnn") if any(r["network"] == name for r in rows)]
    wide, high, left, top = 300, 250, 44, 26
    parts = []
    for at, name in enumerate(names):
        mine = [row for row in rows if row["network"] == name]
        parts += _panel(name, mine, at * wide + left, top, wide - left - 14, high - top - 44)
    style = (
        "text{font:12px sans-serif;fill:#555}.grid{stroke:#8884}.ours{stroke:#2a7de1;fill:none;stroke-width:2}"
        ".all{stroke:#c8762b;fill:none;stroke-width:1;opacity:.35}.best{stroke:#c8762b;fill:none;stroke-width:2}"
        ".bar{stroke-width:1.5}.before{stroke:#888;stroke-dasharray:4 3}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide * len(names)} {high}" role="img">'
        f"<title>Accuracy against FLOPs left, nothing trained; the table has the numbers</title><style>{style}</style>"
        f"{''.join(parts)}</svg>\n"
    )


def _panel(name: str, rows: Sequence[Mapping[str, str]], x0: float, y0: float, wide: float, high: float) -> list[str]:
    def x(flops: float) -> float:
        return x0 + (1.0 - flops) / 0.65 * wide

    def y(accuracy: float) -> float:
        return y0 + (1.0 - accuracy) * high

    before = float(rows[0]["accuracy_before"])
    out = [f'<text x="{x0}" y="{y0 - 10}">{name}</text>']
    for share in (1.0, 0.8, 0.6, 0.4):
        out.append(f'<text x="{x(share):.1f}" y="{y0 + high + 16:.1f}" text-anchor="middle">{share:.0%}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(f'<line class="grid" x1="{x0}" x2="{x0 + wide}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        out.append(f'<text x="{x0 - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    out.append(f'<line class="before" x1="{x0}" x2="{x0 + wide}" y1="{y(before):.1f}" y2="{y(before):.1f}"/>')
    theirs: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        if row["tool"] != "secateur":
            theirs.setdefault(row["method"] + row["seed"], []).append(row)
    out += [_line("all", [(x(float(r["flops"])), y(float(r["accuracy"]))) for r in some]) for some in theirs.values()]
    best = [_best([r for r in rows if r["tool"] != "secateur" and r["budget"] == b]) for b in _budgets(rows)]
    mine = [_best([r for r in rows if r["tool"] == "secateur" and r["budget"] == b], 0.5) for b in _budgets(rows)]
    for dress, some in (("best", best), ("ours", mine)):
        points = [row for row in some if row]
        out.append(_line(dress, [(x(float(r["flops"])), y(float(r["accuracy"]))) for r in points]))
        out += [
            f'<line class="{dress} bar" x1="{x(float(r["flops"])):.1f}" x2="{x(float(r["flops"])):.1f}" '
            f'y1="{y(float(r["low"])):.1f}" y2="{y(float(r["high"])):.1f}"/>'
            for r in points
        ]
    out.append(f'<text x="{x0 + wide / 2:.1f}" y="{y0 + high + 32:.1f}" text-anchor="middle">FLOPs left</text>')
    return out


def _budgets(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return sorted({row["budget"] for row in rows}, key=float, reverse=True)


def _best(rows: Sequence[Mapping[str, str]], at: float = 1.0) -> Mapping[str, str] | None:
    """The row at this place between the least accurate (0) and the most (1)."""
    rows = sorted(rows, key=lambda row: float(row["accuracy"]))
    return rows[round(at * (len(rows) - 1))] if rows else None


def _line(dress: str, points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="{dress}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in sorted(points))}"/>'


if __name__ == "__main__":
    sys.exit(main())
