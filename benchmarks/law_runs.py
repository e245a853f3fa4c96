"""Tiny language models of three widths, rounded at several moments of their training: what the laws are tried on.

    PYTHONPATH=src python -m benchmarks.law_runs        # law_runs.csv: one row a network, moment and width in bits

Llamas of two blocks on the bytes of Python's library, at a constant learning rate, so that every moment is a checkpoint
of one and the same run. The matrices inside the blocks are rounded to nearest with scales for 16 weights each; the rise
of the loss is taken on the same windows of files that no model has seen. `params` leaves the embeddings out. Some two
minutes a seed; what it gave is found again in the user's cache.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import harness, tiny
from secateur.law import law
from secateur.maths.grids.affine import Affine
from secateur.maths.rounding import nearest

WIDTHS, MOMENTS, BITS, GROUP, BATCH, SEEDS = (16, 32, 64), (100, 200, 400, 800, 1600), (2, 3, 4), 16, 4, 3
TABLE = Path(__file__).with_suffix(".csv")


@cache
def of(seed: int) -> tuple[dict[str, Any], ...]:
    """The rows of one seed; `bits` 16 is the network as it is."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "secateur" / "claims"
    file = home / f"law-runs-{seed}.json"
    if not file.exists():
        rows = [row for width in WIDTHS for row in _run(width, seed)]
        home.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(rows))
        part.rename(file)
    return tuple(json.loads(file.read_text()))


def rise(seed: int, width: int, moment: int, bits: int) -> float:
    """Nats per token that the rounded network has more than the network."""
    return next(
        row["rise"]
        for row in of(seed)
        if (row["width"], row["tokens"], row["bits"]) == (width, moment * BATCH * tiny.WINDOW, bits)
    )


def _run(width: int, seed: int) -> list[dict[str, Any]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = LlamaConfig(
        vocab_size=256, hidden_size=width, intermediate_size=3 * width, max_position_embeddings=tiny.WINDOW, **shape
    )
    model = LlamaForCausalLM(config)
    train, _, unseen = tiny.text()
    measure = tiny.windows(unseen, 128, 5000)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    rows: list[dict[str, Any]] = []
    for step in range(1, max(MOMENTS) + 1):
        for group in adam.param_groups:
            group["lr"] = 3e-3 * min(step / 50, 1.0)
        batch = tiny.windows(train, BATCH, seed * 100_000 + step)
        model(batch, labels=batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        if step in MOMENTS:
            rows += _rounded(model, measure, {"run": f"{width}-{seed}", "width": width}, step)
    return rows


@torch.no_grad()
def _rounded(model: nn.Module, measure: torch.Tensor, about: dict[str, Any], step: int) -> list[dict[str, Any]]:
    parts = tiny.linears(model)
    about |= {"params": sum(part.weight.numel() for part in parts.values()), "tokens": step * BATCH * tiny.WINDOW}
    whole = tiny.loss(tiny.logits(model, measure), measure)
    rows = [about | {"bits": 16, "loss": whole, "rise": 0.0}]
    for bits in BITS:
        grid = Affine(bits, GROUP)
        weights = {name: nearest(part.weight, grid.fit(part.weight)) for name, part in parts.items()}
        with tiny.wearing(model, weights):
            loss = tiny.loss(tiny.logits(model, measure), measure)
        rows.append(about | {"bits": bits, "loss": loss, "rise": loss - whole})
    return rows


if __name__ == "__main__":
    stamp = harness.stamp()
    told = ("run", "params", "tokens", "bits", "loss", "rise")
    rows = [{key: row[key] for key in told} for seed in range(SEEDS) for row in of(seed)]
    for row in rows:
        row |= {"loss": f"{row['loss']:.6f}", "rise": f"{row['rise']:.6f}"}
    harness.write_rows(TABLE, [row | {key: stamp[key] for key in ("date", "commit")} for row in rows])
    law(  # the picture of docs/guides/law.md, as its command draws it
        "qid-law",
        TABLE,
        where="bits < 16, rise > 0, tokens > 200K",
        at="params=26.6K, tokens=2M",
        out=harness.ROOT / "docs" / "guides" / "law.svg",
    )
