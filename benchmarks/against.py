"""Secateur and its rivals on one model, the same texts and one machine, in one run: a dated CSV and a table of ratios.

    python benchmarks/rivals/venvs.py ../venvs
    python benchmarks/against.py MODEL --calib calib.txt --text heldout.txt --venvs ../venvs --work ../out

At each point ours gets the bits of the leanest rival there, rounded down, so it never has more than any of them; at the
points that are whole files it gets their bytes. CPU seconds and peak memory are of whole processes, imports and writing
included. Everybody calibrates on as many windows of the same text, and one scorer reads what each has written. Finished
runs are taken up again unless --fresh.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "rivals"))

from common import THREADS, load_tokenizer, stored, windows  # noqa: E402
from harness import commit, stamp  # noqa: E402
from venvs import python_of  # noqa: E402

from secateur.bench import rivals  # noqa: E402

#: where each rival lives, of those that need a place of their own; and what the CSV calls it
ENVIRONMENTS = {"gptq": "llmcompressor", "gptqmodel": "gptqmodel", "autoround": "autoround", "hqq": "hqq"}
TOOLS = {"gptq": "llm-compressor", "autoround": "auto-round"}


@dataclass(frozen=True)
class Point:
    """One budget at which ours meets some rivals. `over="all"` compares whole files at equal bytes.

    `options` are more words for `secateur cut`, for points at which ours is not to choose for itself.
    """

    name: str
    rivals: tuple[tuple[str, str], ...]  # (rival, setting)
    over: str = "linear"
    options: tuple[str, ...] = ()


_ONE_WIDTH = ("--damage", "output", "--round", "one-sided", "--pin", "*layers*=int(bits=4, group=128)")
POINTS = (
    Point("one width", (("gptq", "w4g128"),), options=_ONE_WIDTH),  # the same job: whose is faster?
    Point("4 bits", (("gptq", "w4g128"), ("autoround", "w4g128"))),
    Point("3 bits", (("gptq", "w3g128"), ("autoround", "w3g128"))),
    Point(
        "2 bits",
        (
            ("gptq", "w2g64a"),
            ("autoround", "w2g64"),
            ("autoround", "w2g64a"),
            ("hqq", "w2g64"),
        ),
    ),
    Point("2.7 bits", (("llama.cpp", "iq2_m+f16emb"),)),
    Point("2.9 bits", (("llama.cpp", "q2_k+f16emb"),)),
    Point("file", (("gptq", "w4g128"),), over="all"),
    Point("small file", (("llama.cpp", "q4_k_m"),), over="all"),
)


# --- runs ------------------------------------------------------------------------------------------------------------


def measured(command: Sequence[str], log: Path) -> tuple[int, dict[str, Any]]:
    """Run a command in one thread: its exit code, CPU seconds and peak memory of the process and its children."""
    env = os.environ | {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS), "CUDA_VISIBLE_DEVICES": ""}
    start = time.time()
    with log.open("w") as chatter, log.with_suffix(".json").open("w") as answer:
        child = subprocess.Popen(command, stdout=answer, stderr=chatter, env=env)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, {
        "cpu_total_s": round(used.ru_utime + used.ru_stime, 2),
        "wall_s": round(time.time() - start, 2),
        "peak_rss_bytes": used.ru_maxrss * 1024,
    }


def run_rival(args: argparse.Namespace, name: str, setting: str) -> Path | None:
    """The folder a rival's run has left, made now if it is not there; None with a word on stderr if it fails."""
    save = (args.work / f"{name}-{setting}").absolute()
    if (save / "run.json").exists() and not args.fresh:
        return save
    rival, _ = rivals.find(name, {name: str(python_of(args.venvs, ENVIRONMENTS[name]))} if name in ENVIRONMENTS else {})
    tokens = args.work / "windows.npy"
    np.save(tokens, windows(load_tokenizer(args.model), args.calib, args.samples, args.seq_len).numpy())
    print(f"running {name} {setting}", file=sys.stderr, flush=True)
    try:
        told = rivals.run(rival, setting, save, model=args.model, tokens=tokens, device="cpu", seed=0)
    except rivals.RivalError as why:
        print(f"FAILED {name} {setting}: {why}", file=sys.stderr, flush=True)
        return None
    tool, method = spelled(name, setting)
    run = stamp() | {"tool": tool, "version": told["version"], "method": method, "model": args.model.name}
    run |= {"samples": args.samples, "seq_len": args.seq_len, "threads": THREADS}
    run |= {"cpu_total_s": round(told["cpu_seconds"], 2), "wall_s": round(told["seconds"], 2)}
    (save / "run.json").write_text(json.dumps(run | {"peak_rss_bytes": told["peak_rss_bytes"]}, indent=2) + "\n")
    return save


def spelled(name: str, setting: str) -> tuple[str, str]:
    """Tool and method as the CSV has them."""
    return TOOLS.get(name, name), f"gptq-{setting}" if name == "gptq" and "rtn-" not in setting else setting


def run_ours(args: argparse.Namespace, point: Point, budget: str) -> Path | None:
    """The same for ours: `secateur cut` as a process, its answer kept beside the export."""
    save = args.work / f"secateur-{point.name.replace(' ', '-')}"
    if (save / "run.json").exists() and not args.fresh:
        return save
    shutil.rmtree(save, ignore_errors=True)
    save.mkdir(parents=True)
    command = [*shlex.split(args.secateur), "cut", str(args.model), "--data", str(args.calib), "--budget", budget]
    command += ["--over", point.over, "--format", "compressed-tensors", "-o", str(save / "packed"), "--json"]
    command += ["--samples", str(args.samples), "--seq-len", str(args.seq_len)]
    command += [*point.options, *shlex.split(args.ours)]
    log = save / "cut.log"
    print(f"running {shlex.join(command)}", file=sys.stderr, flush=True)
    code, spent = measured(command, log)
    if code:
        return _failed(command, log)
    method = f"{point.name}: {budget}"
    answer = json.loads(log.with_suffix(".json").read_text())
    run = stamp() | {"tool": "secateur", "version": commit(), "method": method, "model": args.model.name} | spent
    run |= {"threads": THREADS, "answer": answer, "command": shlex.join(command)}
    (save / "run.json").write_text(json.dumps(run, indent=2) + "\n")
    return save


def _failed(command: list[str], log: Path) -> None:
    tail = log.read_text().strip().splitlines()[-3:] if log.exists() else []
    print(f"FAILED {shlex.join(command)}\n  " + "\n  ".join(tail), file=sys.stderr, flush=True)


def budget_for(point: Point, folders: Sequence[Path], model: Path) -> str:
    """As much as the leanest rival of the point has, rounded down."""
    sizes = [stored(folder / "packed", model) for folder in folders]
    if point.over == "all":
        return f"{min(size for _, size in sizes)} bytes"
    least = min(bits for bits, _ in sizes) * 1e4
    if point.options:  # ours is told what to do: the budget must only not be in the way
        return f"{math.ceil(least) / 1e4:.4f} bits/weight"
    return f"{math.floor(least) / 1e4:.4f} bits/weight"


# --- the table -------------------------------------------------------------------------------------------------------


def table(rows: Sequence[dict[str, str]], points: Sequence[tuple[Point, str]]) -> str:
    """Markdown: every rival beside ours at each point. A ratio below 1 is ours being better, cheaper or smaller."""
    lines = [
        "| point | text | tool | method | bits/weight | bytes | KL | rise | CPU s | peak MB | KL ratio | CPU ratio |",
        "|" + "---|" * 12,
    ]
    by = {(r["tool"], r["method"], r["text"]): r for r in rows}
    for text in dict.fromkeys(r["text"] for r in rows):
        for point, budget in points:
            ours = by.get(("secateur", f"{point.name}: {budget}", text))
            for row in [ours, *(by.get((*spelled(*rival), text)) for rival in point.rivals)]:
                if row:
                    lines.append("| " + " | ".join([point.name, text, *_cells(row, ours)]) + " |")
    return "\n".join(lines)


def _cells(row: dict[str, str], ours: dict[str, str] | None) -> list[str]:
    cells = [row["tool"], row["method"], f"{float(row['bits_linear']):.3f}", f"{int(row['file_bytes']):,}"]
    cells += [f"{float(row['kl']):.5f}", f"{float(row['rise']):.5f}", f"{float(row['cpu_total_s']):.0f}"]
    cells += [f"{int(row['peak_rss_bytes']) / 1e6:.0f}"]
    if ours is None or row is ours:
        return [*cells, "", ""]
    return [*cells, *(f"{float(ours[k]) / float(row[k]):.2f}" for k in ("kl", "cpu_total_s"))]


def main() -> None:
    args = _arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    folders: dict[tuple[str, str], Path] = {}
    points = [point for point in POINTS if not args.points or point.name in args.points.split(",")]
    for name, method in dict.fromkeys(rival for point in points for rival in point.rivals):
        found = run_rival(args, name, method) if name in args.only.split(",") else None
        if found:
            folders[name, method] = found
    ours, met = [], []
    for point in points:
        there = [folders[rival] for rival in point.rivals if rival in folders]
        if there:
            budget = budget_for(point, there, args.model)
            met.append((point, budget))
            ours.append(run_ours(args, point, budget))
    score = [sys.executable, str(HERE / "rivals" / "score.py"), "--original", str(args.model), "--out", str(args.out)]
    score += [part for text in args.text for part in ("--text", str(text))] + ["--windows", str(args.windows)]
    score += ["--seq-len", str(args.seq_len), *(str(f) for f in [*folders.values(), *filter(None, ours)])]
    subprocess.run(score, check=True, stdout=sys.stderr)
    today = [r for r in csv.DictReader(args.out.open()) if r["model"] == args.model.name]
    print(table(today, met))
    if None in ours or len(folders) < len({rival for point in points for rival in point.rivals}):
        raise SystemExit(1)


def _arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("model", type=Path)
    asked.add_argument("--calib", type=Path, required=True)
    asked.add_argument("--text", type=Path, action="append", required=True, help="held-out text (may be repeated)")
    asked.add_argument("--venvs", type=Path, required=True, help="where rivals/venvs.py put the environments")
    asked.add_argument("--work", type=Path, required=True, help="folder for what everybody writes")
    asked.add_argument("--out", type=Path, default=HERE / "rivals.csv")
    asked.add_argument("--only", default="gptq,autoround,hqq,llama.cpp", help="rivals to meet, comma between")
    asked.add_argument("--points", default="", help='only these, comma between: "one width,3 bits"')
    asked.add_argument("--secateur", default=f"{sys.executable} -m secateur", help="how to call ours")
    asked.add_argument("--ours", default="", help="more options for `secateur cut`")
    asked.add_argument("--samples", type=int, default=128, help="calibration windows")
    asked.add_argument("--seq-len", type=int, default=256)
    asked.add_argument("--windows", type=int, default=256, help="scoring windows a text")
    asked.add_argument("--fresh", action="store_true", help="run everything again (ratios of CPU seconds want this)")
    return asked.parse_args()


if __name__ == "__main__":
    main()
