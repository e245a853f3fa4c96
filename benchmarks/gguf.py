"""Our GGUF files beside llama.cpp's own at the same bytes: benchmarks/gguf.csv.

    python -m benchmarks.gguf ../shared/models/lm-small ../shared/data/lm/calib.txt ../shared/data/lm/heldout.txt

Stock files are made by the real llama.cpp from the same 16-bit file, with an importance matrix of the same windows that
we calibrate on. Ours get the bytes of the stock file as budget. Both are run by the real llama.cpp, activations rounded
as it does, on windows of 256 tokens of held-back text: the loss, and KL from the uncut file in 32 bits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.harness import stamp, write_rows

from secateur.cut import apply, export, plan, survey
from secateur.cut.opening import open_case
from secateur.measure import llamacpp
from secateur.measure.compare import Comparison
from secateur.model.text import load_tokenizer, whole
from secateur.parts.gguf import imatrix

#: `enum llama_ftype` of llama.h
STOCK = {"Q2_K": 10, "Q3_K_M": 12, "Q4_K_M": 15, "Q5_K_M": 17}


def windows(folder: str, text: str, count: int, length: int) -> torch.Tensor:
    """`count` windows spread evenly over a text."""
    ids = torch.tensor(load_tokenizer(folder)(whole(text)[0], add_special_tokens=False, verbose=False)["input_ids"])
    every = len(ids) // count
    return torch.stack([ids[at * every : at * every + length] for at in range(count)])


def score(file: Path, tokens: torch.Tensor, reference: np.ndarray) -> dict[str, float]:
    """Loss and KL in llama.cpp, nats per token."""
    found = Comparison()
    for at in range(0, len(tokens), 8):
        logits = torch.from_numpy(llamacpp.logits(file, tokens[at : at + 8].numpy(), exact=False))
        found.update(logits, torch.from_numpy(reference[at : at + 8]), tokens[at : at + 8])
    return {"loss": found.loss, "kl": found.kl, "kl_error": found.kl_error, "agreement": found.agreement}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("model")
    ask.add_argument("calibration")
    ask.add_argument("heldout")
    ask.add_argument("--kinds", default=",".join(STOCK))
    ask.add_argument("--samples", type=int, default=128)
    ask.add_argument("--windows", type=int, default=48)
    ask.add_argument("--length", type=int, default=256, help="tokens in a window, at most the model's context")
    ask.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    ask.add_argument("--work", type=Path, help="keep the survey and the files here, and take up what is there")
    asked = ask.parse_args()
    if asked.work:
        run(asked, asked.work)
        return
    with tempfile.TemporaryDirectory() as scratch:
        run(asked, Path(scratch))


def run(asked: Any, scratch: Path) -> None:
    export(asked.model, "gguf", scratch / "f16")
    first = scratch / "f16/model.gguf"
    tokens = windows(asked.model, asked.heldout, asked.windows, asked.length)
    reference = llamacpp.logits(first, tokens.numpy())
    how = {"samples": asked.samples, "seq_len": asked.length}
    case = open_case(asked.model, asked.calibration, "gguf", asked.samples, asked.length, 0, None)
    np.savez(scratch / "importance.npz", **imatrix.gather(case.stream, case.calib, case.format.names))  # type: ignore[attr-defined]
    begun = time.time()
    survey(asked.model, asked.calibration, format="gguf", out=scratch / "menu", **how)
    surveyed = time.time() - begun

    def keep(row: dict[str, Any]) -> None:
        write_rows(asked.out, [row | stamp()], ("model", "at", "who"))

    for kind in asked.kinds.split(","):
        stock = scratch / f"{kind}.gguf"
        llamacpp.quantize(first, stock, STOCK[kind], scratch / "importance.npz")
        row = {"model": Path(asked.model).name, "at": kind, "samples": asked.samples, "windows": asked.windows}
        told = {"who": f"llama.cpp {kind}", "bytes": stock.stat().st_size, **score(stock, tokens, reference)}
        keep(row | told | {"survey_seconds": "", "apply_seconds": ""})
        begun = time.time()
        (chosen,) = plan(scratch / "menu", [f"{stock.stat().st_size} bytes"])
        out = scratch / kind
        apply(asked.model, chosen, data=asked.calibration, out=out, menu=scratch / "menu", **how)
        took = {"survey_seconds": round(surveyed, 1), "apply_seconds": round(time.time() - begun, 1)}
        ours = out / "model.gguf"
        told = {"who": "secateur", "bytes": ours.stat().st_size, **score(ours, tokens, reference)}
        keep(row | told | took)
        print(json.dumps(row | told | took))


if __name__ == "__main__":
    main()
