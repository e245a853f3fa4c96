"""The frame of a rival's run: load, cut, clock, save. Each `run_<rival>.py` hands over the cut and nothing else.

SAVE/packed   the rival's own file, as its users get it
SAVE/dense    the values its own arithmetic sees, as plain float32 weights: loads everywhere
SAVE/run.json version, CPU seconds, peak memory
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import THREADS, cpu_seconds, load, load_tokenizer, peak_rss_bytes, settle, windows
from harness import stamp
from torch import Tensor

#: (method, model, tokenizer, calibration windows) -> (the dense weights by name, how to write the rival's own file)
Cut = Callable[[str, Any, Any, Tensor], tuple[dict[str, Tensor], Callable[[Path], None]]]


def main(tool: str, version: str, cut: Cut, doc: str) -> None:
    """Run one method of one rival; with --text and --out, score what it saved in a process of its own."""
    args = _arguments(doc)
    model, tokenizer = load(args.model), load_tokenizer(args.model)
    calib = windows(tokenizer, args.calib, args.samples, args.seq_len)
    cpu, wall = cpu_seconds(), time.time()
    dense, write = cut(args.method, model, tokenizer, calib)
    run = stamp() | {"tool": tool, "version": version, "method": args.method, "model": args.model.name}
    run |= {"samples": len(calib), "seq_len": args.seq_len, "threads": THREADS}
    run |= {"cpu_s": round(cpu_seconds() - cpu, 2)}
    shutil.rmtree(args.save, ignore_errors=True)
    packed = args.save / "packed"
    packed.mkdir(parents=True)
    write(packed)
    run |= {"cpu_total_s": round(cpu_seconds(), 2), "wall_s": round(time.time() - wall, 2)}
    run |= {"peak_rss_bytes": peak_rss_bytes()}
    settle(packed, args.model)
    _save_dense(args.model, dense, args.save / "dense")
    (args.save / "run.json").write_text(json.dumps(run, indent=2) + "\n")
    print(json.dumps(run))
    if args.text and args.out:
        texts = [part for text in args.text for part in ("--text", str(text))]
        score = [sys.executable, str(Path(__file__).with_name("score.py")), str(args.save)]
        subprocess.run([*score, "--original", str(args.model), *texts, "--out", str(args.out)], check=True)


def _arguments(doc: str) -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("method")
    asked.add_argument("--model", type=Path, required=True, help="a folder in Hugging Face layout")
    asked.add_argument("--calib", type=Path, required=True, help="text to calibrate on (.txt or .txt.gz)")
    asked.add_argument("--save", type=Path, required=True, help="folder to write; replaced if it is there")
    asked.add_argument("--samples", type=int, default=128, help="calibration windows")
    asked.add_argument("--seq-len", type=int, default=256, help="tokens a window")
    asked.add_argument("--text", type=Path, action="append", help="score on this held-out text (may be repeated)")
    asked.add_argument("--out", type=Path, help="CSV to append the scores to")
    return asked.parse_args()


def _save_dense(original: Path, dense: dict[str, Tensor], folder: Path) -> None:
    model = load(original)
    unknown = model.load_state_dict(dense, strict=False).unexpected_keys
    if unknown:
        raise SystemExit(f"the original has no {unknown[:3]}")
    model.save_pretrained(folder)
    load_tokenizer(original).save_pretrained(folder)
