"""Score saved models against the original on the same windows of text, and append one row a model and text to a CSV.

    python score.py out/gptq-w4g128 out/ours --original MODEL --text heldout.txt --text docs.txt.gz --out rivals.csv

A folder is what a rival left (`packed`, `dense`, `run.json`) or any model that transformers loads: an export of ours,
a compressed-tensors file. The packed file is scored where the installed transformers can read it, else the dense
values; the column `scored` says which. Every figure is in nats per token over all tokens of all windows.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import load, load_tokenizer, stored, text_name, windows
from harness import stamp, write_rows
from torch import Tensor

from secateur.parts.gguf.read import is_gguf
from secateur.parts.reading import network

COLUMNS = [
    *("date", "commit", "machine", "threads", "tool", "version", "method", "model", "text", "windows", "seq_len"),
    *("bits_linear", "file_bytes", "scored", "loss_before", "rise", "rise_se", "kl", "kl_se", "agreement"),
    *("cpu_s", "cpu_total_s", "wall_s", "peak_rss_bytes"),
]


#: log-probabilities of the original are kept for the next model up to this many bytes a text, else made again
KEEP = 1 << 30


@dataclass
class Text:
    """Windows of one text, and what the original says about them."""

    tokens: Tensor
    original: Any
    batch: int = 4
    kept: dict[int, Tensor] = field(default_factory=dict)

    def says(self, at: int) -> Tensor:
        """Log-probabilities of the original for the batch that starts at window `at`."""
        if at in self.kept:
            return self.kept[at]
        p = log_probabilities(self.original, self.tokens[at : at + self.batch, :-1])
        if p.numel() * p.element_size() * len(self.tokens) / self.batch <= KEEP:
            self.kept[at] = p
        return p


def log_probabilities(model: Any, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens, use_cache=False).logits.float().log_softmax(-1)


@torch.no_grad()
def compare(text: Text, cut: Any) -> dict[str, float]:
    """Loss of the original, and the cut's loss rise and KL(original || cut), with standard errors between windows."""
    losses, rises, kls, same = [], [], [], 0
    for at in range(0, len(text.tokens), text.batch):
        rows = text.tokens[at : at + text.batch]
        p, q, y = text.says(at), log_probabilities(cut, rows[:, :-1]), rows[:, 1:, None]
        was, now = p.gather(-1, y)[..., 0].double(), q.gather(-1, y)[..., 0].double()
        losses.append(-was.mean(1))
        rises.append((was - now).mean(1))
        kls.append((p.exp() * (p - q)).sum(-1).double().mean(1))
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
    loss, rise, kl = torch.cat(losses), torch.cat(rises), torch.cat(kls)
    return {
        "loss_before": loss.mean().item(),
        "rise": rise.mean().item(),
        "rise_se": rise.std().item() / len(rise) ** 0.5,
        "kl": kl.mean().item(),
        "kl_se": kl.std().item() / len(kl) ** 0.5,
        "agreement": same / text.tokens[:, 1:].numel(),
    }


def opened(folder: Path, dtype: str) -> tuple[Any, str]:
    """The model in a folder, and which form of it could be read: "packed" or "dense"."""
    packed = folder / "packed" if (folder / "packed").is_dir() else folder
    if is_gguf(packed):
        return network(packed), "packed"
    if (packed / "config.json").exists():
        try:
            return load(packed, dtype), "packed"
        except Exception as problem:  # whatever this reader dislikes about a foreign file; the row says what was scored
            if not (folder / "dense").is_dir():
                raise
            print(f"{packed}: not readable here ({str(problem)[:90]!r}), scoring dense", file=sys.stderr)
    return load(folder / "dense"), "dense"


def score(folder: Path, model: Path, texts: dict[str, Text], dtype: str) -> list[dict[str, Any]]:
    """One row a text for one saved model."""
    cut, scored = opened(folder, dtype)
    packed = folder / "packed" if (folder / "packed").is_dir() else folder
    bits, size = stored(packed, model)
    about = folder / "run.json"
    run = json.loads(about.read_text()) if about.exists() else stamp() | {"tool": folder.name, "model": model.name}
    run |= {"bits_linear": bits, "file_bytes": size, "scored": scored}
    rows = []
    for name, text in texts.items():
        at = {"text": name, "windows": len(text.tokens), "seq_len": text.tokens.shape[1] - 1}
        rows.append(run | at | compare(text, cut))
    return rows


def known(folder: Path, out: Path, texts: dict[str, Text]) -> bool:
    """Whether the CSV has this very run on all these windows."""
    about = folder / "run.json"
    if not about.exists() or not out.exists():
        return False
    run = json.loads(about.read_text())
    same = {c: _plain(run[c]) for c in ("date", "tool", "version", "method", "model", "cpu_total_s")}
    with out.open() as file:
        rows = [row for row in csv.DictReader(file) if all(row[c] == value for c, value in same.items())]
    have = {(row["text"], row["windows"], row["seq_len"]) for row in rows}
    return {(name, str(len(t.tokens)), str(t.tokens.shape[1] - 1)) for name, t in texts.items()} <= have


def append(rows: list[dict[str, Any]], out: Path) -> None:
    """Add rows to the CSV; a row of the same day, tool, method, model and text replaces the older one."""
    plain = [{c: _plain(row.get(c, "")) for c in COLUMNS} for row in rows]
    write_rows(out, plain, key=("model", "text", "tool", "method", "date"))


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folders", type=Path, nargs="+")
    asked.add_argument("--original", type=Path, required=True)
    asked.add_argument("--text", type=Path, action="append", required=True, help="held-out text (may be repeated)")
    asked.add_argument("--out", type=Path, required=True, help="CSV to append to")
    asked.add_argument("--windows", type=int, default=256)
    asked.add_argument("--seq-len", type=int, default=256)
    asked.add_argument("--dtype", default="float32", help="to load packed models in; FP4 kinds need bfloat16")
    asked.add_argument("--again", action="store_true", help="score also runs that the CSV has")
    args = asked.parse_args()
    for folder in args.folders:
        if not any((folder / name).exists() for name in ("run.json", "config.json")):
            raise SystemExit(f"{folder}: neither a finished run nor a model is there")
    tokenizer, original = load_tokenizer(args.original), load(args.original)
    texts = {
        text_name(path): Text(windows(tokenizer, path, args.windows, args.seq_len, extra=1), original)
        for path in args.text
    }
    for folder in args.folders:
        if known(folder, args.out, texts) and not args.again:
            print(f"{folder}: in {args.out} already", file=sys.stderr)
            continue
        rows = score(folder, args.original, texts, args.dtype)
        append(rows, args.out)
        for row in rows:
            print(
                f"{row['tool']:15s} {row.get('method', ''):14s} {row['text']:10s} {row['bits_linear']:.3f} bits/weight "
                f"{row['file_bytes']:>10,} bytes  KL {row['kl']:.5f} +- {row['kl_se']:.5f}  rise {row['rise']:.5f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
