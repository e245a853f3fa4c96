"""A larger model on a GPU: trained here in a minute, surveyed, planned, cut at three budgets and measured.

    PYTHONPATH=src:benchmarks python benchmarks/larger.py ../shared/models/lm-small ../shared/data/lm  # one GPU, 7 min
    PYTHONPATH=src:benchmarks python benchmarks/larger.py ... --width 128 --layers 2 --steps 20         # only to try it

No large pretrained model is at hand, so a Llama of 64 million parameters with the tokenizer of the small one learns the
texts beside it and Python's own library. The contestants of `secateur bench` get the same bytes: damage with two-sided
feedback, the same with one side, and GPTQ's (every layer alike, one side). Written to benchmarks/larger.csv: KL to the
original in nats per token on text that neither training nor calibration saw; seconds of survey and of each cut; and the
most memory that the device held.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from harness import ROOT, stamp, write_rows
from torch.nn.functional import cross_entropy

from secateur.bench import bench
from secateur.cut import survey
from secateur.demo import library
from secateur.model.stream import device_of

TABLE = ROOT / "benchmarks" / "larger.csv"
BUDGETS = ("4.126 bits/weight", "3.126 bits/weight", "2.5 bits/weight")
CONTESTANTS = ("two-sided", "one-sided", "uniform+one-sided")
CONTEXT = 256


def train(tokenizer: str, texts: Path, folder: Path, width: int, layers: int, steps: int) -> float:
    """A Llama in Hugging Face layout, in bfloat16; its last training loss."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    device = device_of()
    words = AutoTokenizer.from_pretrained(tokenizer)
    text = (texts / "train_slice.txt").read_text(encoding="utf-8") + library()[0]
    pieces = [text[at : at + 1_000_000] for at in range(0, len(text), 1_000_000)]
    tokens = torch.tensor([one for piece in words(pieces, verbose=False)["input_ids"] for one in piece], device=device)
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": width * 8 // 3 // 64 * 64, "num_hidden_layers": layers}
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 64}
    ends = {"bos_token_id": None, "eos_token_id": None, "max_position_embeddings": CONTEXT}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes, **heads, **ends)).to(device)
    adam = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1)
    course = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda at: min((at + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * at / steps))
    )
    loss = torch.zeros(())
    for _ in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT - 1, (32, 1), device=device)
        batch = tokens[starts + torch.arange(CONTEXT + 1, device=device)]
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(batch[:, :-1]).logits
        loss = cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        course.step()
    model.bfloat16().save_pretrained(folder)
    words.save_pretrained(folder)
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a model folder whose tokenizer is taken")
    parser.add_argument("texts", type=Path, help="a folder with train_slice.txt, calib.txt and heldout.txt")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--csv", type=Path, default=TABLE)
    args = parser.parse_args()
    device = device_of()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    with TemporaryDirectory() as place:
        began = time.perf_counter()
        loss = train(args.tokenizer, args.texts, Path(place) / "model", args.width, args.layers, args.steps)
        print(f"trained in {time.perf_counter() - began:.0f} s to {loss:.3f} nats a token", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        heldout = Path(place) / "heldout.txt"
        heldout.write_text((args.texts / "heldout.txt").read_text(encoding="utf-8")[:400_000], encoding="utf-8")
        began = time.perf_counter()
        job = f"{place}/model", str(args.texts / "calib.txt")
        how = {"format": "compressed-tensors", "samples": None, "seq_len": None, "seed": 0, "device": None}
        survey(*job, out=Path(place) / "bench" / "menu-kronecker", over="linear", damage="kronecker", **how)
        surveyed = time.perf_counter() - began
        told = bench(
            *job,
            BUDGETS,
            CONTESTANTS,
            out=Path(place) / "bench",
            text=str(heldout),
            over="linear",
        )
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        size = sum(file.stat().st_size for file in (Path(place) / "model").glob("*.safetensors"))
    model = {"width": args.width, "layers": args.layers, "steps": args.steps, "model_mb": round(size / 1e6)}
    for row in told["rows"]:
        print(row, flush=True)
        kept = {name: row[name] for name in ("budget", "contestant", "bytes", "kl", "kl_interval", "predicted", "rise")}
        spent = {"cut_s": round(row["seconds"], 1), "survey_s": round(surveyed, 1), "gpu_peak_mb": round(peak / 1e6)}
        keys = ("width", "layers", "budget", "contestant", "gpu")
        write_rows(args.csv, [stamp() | model | kept | spent | {"gpu": gpu}], key=keys)


if __name__ == "__main__":
    main()
