"""Does peak memory stay at a few blocks, whatever the depth? A synthetic Llama in shards, cut whole in one process.

    PYTHONPATH=src:benchmarks python benchmarks/memory.py            # 1 GB and twice as deep; an hour on two cores
    PYTHONPATH=src:benchmarks python benchmarks/memory.py --size 60  # megabytes: the small sizes of the test
    PYTHONPATH=src:benchmarks python benchmarks/memory.py --blocks 19 --edits "int(bits=8, group=128)"  # to 1 GB

The promise: below 600 MB plus three blocks, and twice the depth adds less than 5%. Weights are random (what is cut does
not matter here), calibration is short, and every linear layer is pinned to two-sided 4 bits: survey, plan, apply,
export and verification all run, on the real path. Written to benchmarks/memory.csv.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from harness import ROOT, stamp, write_rows
from torch import Tensor

from secateur.export._write import Layout, write_config, write_model

TABLE = ROOT / "benchmarks" / "memory.csv"
#: bytes that everything but the model may take, interpreter and libraries included
REST = 600e6
EDIT = "int(bits=4, group=128)"


@dataclass(frozen=True)
class Shape:
    """A Llama: sizes, and the bytes that follow from them."""

    width: int
    inner: int
    vocabulary: int
    blocks: int

    def layouts(self) -> dict[str, Layout]:
        """Every stored tensor, in bfloat16."""
        out: dict[str, Layout] = {"model.embed_tokens.weight": ("BF16", (self.vocabulary, self.width))}
        for i in range(self.blocks):
            at = f"model.layers.{i}"
            out |= {f"{at}.self_attn.{name}_proj.weight": ("BF16", (self.width, self.width)) for name in "qkvo"}
            out |= {f"{at}.mlp.{name}_proj.weight": ("BF16", (self.inner, self.width)) for name in ("gate", "up")}
            out |= {f"{at}.mlp.down_proj.weight": ("BF16", (self.width, self.inner))}
            out |= {f"{at}.{name}_layernorm.weight": ("BF16", (self.width,)) for name in ("input", "post_attention")}
        return out | {
            "model.norm.weight": ("BF16", (self.width,)),
            "lm_head.weight": ("BF16", (self.vocabulary, self.width)),
        }

    @property
    def bytes(self) -> int:
        return sum(2 * math.prod(shape) for _, shape in self.layouts().values())

    @property
    def block(self) -> int:
        """Bytes of one block as stored."""
        return sum(2 * math.prod(shape) for name, (_, shape) in self.layouts().items() if ".layers.0." in name)

    @classmethod
    def of(cls, megabytes: int) -> Shape:
        """About so large: width grows with the cube root, depth takes the rest."""
        width = max(256, 256 * round((megabytes / 1000) ** (1 / 3) * 4))
        one = cls(width, width * 11 // 4, 8 * width, 1)
        return cls(width, one.inner, one.vocabulary, max(2, round((megabytes * 1e6 - one.bytes) / one.block) + 1))


def make(shape: Shape, folder: Path) -> Path:
    """Write the checkpoint, one tensor in memory at a time, in shards of 100 MB."""
    draw = torch.Generator().manual_seed(0)

    def produce(name: str) -> Tensor:
        size = shape.layouts()[name][1]
        drawn = torch.randn(size, generator=draw) * 0.02 if len(size) > 1 else torch.ones(size)
        return drawn.bfloat16()

    write_model(folder, shape.layouts(), produce, shard=100_000_000)
    sizes = {"hidden_size": shape.width, "intermediate_size": shape.inner, "vocab_size": shape.vocabulary}
    heads = {"num_attention_heads": shape.width // 64, "num_key_value_heads": shape.width // 64}
    more = {"num_hidden_layers": shape.blocks, "max_position_embeddings": 256, "tie_word_embeddings": False}
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_act": "silu"}
    write_config(folder, kind | sizes | heads | more | {"rms_norm_eps": 1e-5, "bos_token_id": None})
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer():
    """One token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE({c: at for at, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=words)


def cut(model: Path, out: Path, samples: int, seq_len: int, over: str, edits: str = EDIT) -> dict:
    """The whole job in a process of its own; what it says."""
    text = out.with_suffix(".txt")
    text.write_text(Path(__file__).read_text() * 4)
    words = [
        sys.executable,
        "-m",
        "secateur",
        "cut",
        str(model),
        "--data",
        str(text),
        "--budget",
        "100%",
        "-o",
        str(out),
    ]
    words += ["--samples", str(samples), "--seq-len", str(seq_len), "--over", over, "--json"]
    if edits:
        words += ["--pin", f"layers={edits}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def rows(small: Shape, samples: int, seq_len: int, over: str, edits: str) -> Iterator[dict[str, object]]:
    """Two depths; the second says what the first did not."""
    first = 0
    for shape in (small, Shape(small.width, small.inner, small.vocabulary, 2 * small.blocks)):
        with tempfile.TemporaryDirectory() as place:
            model = make(shape, Path(place) / "model")
            told = cut(model, Path(place) / "out", samples, seq_len, over, edits)
        peak, limit = told["peak_rss_bytes"], REST + 3 * shape.block
        first = first or peak
        yield {
            "width": shape.width,
            "blocks": shape.blocks,
            "over": over,
            "edits": edits or "all",
            "samples": f"{samples} x {seq_len}",
            "checkpoint_mb": round(shape.bytes / 1e6),
            "block_mb": round(shape.block / 1e6, 1),
            "peak_mb": round(peak / 1e6),
            "limit_mb": round(limit / 1e6),
            "growth": f"{peak / first - 1:+.1%}",
            "holds": peak < limit and peak < 1.05 * first,
            "seconds": round(told["seconds"]),
            **stamp(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1000, help="megabytes of the first checkpoint")
    parser.add_argument("--blocks", type=int, help="that wide, but so deep")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--over", default="all")
    parser.add_argument("--edits", default=EDIT, help="what every linear layer is pinned to; empty for the whole menu")
    args = parser.parse_args()
    shape = Shape.of(args.size)
    shape = replace(shape, blocks=args.blocks or shape.blocks)
    for row in rows(shape, args.samples, args.seq_len, args.over, args.edits):
        print(json.dumps(row), flush=True)
        write_rows(TABLE, [row], key=("checkpoint_mb", "over", "edits", "samples"))


if __name__ == "__main__":
    main()
