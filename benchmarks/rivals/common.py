"""What runs beside rivals share: one thread, the same windows of text, one way to count bytes.

One thread because two OpenMP threads are slower than one on a small shared machine, and because CPU seconds of one
thread compare between tools. Imported before torch.
"""

from __future__ import annotations

import os

THREADS = int(os.environ.get("RIVAL_THREADS", "1"))
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = str(THREADS)
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import gzip  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import re  # noqa: E402
import struct  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

torch.set_num_threads(THREADS)
_ABOVE = str(Path(__file__).resolve().parents[1])  # so that every part finds `harness`
sys.path[:] = [*(path for path in sys.path if path != _ABOVE), _ABOVE]  # last: our `gguf.py` would hide the library


# --- text ------------------------------------------------------------------------------------------------------------


def read(path: Path) -> str:
    """The text of a file, gzipped or not; form feeds between documents become an empty line."""
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").replace("\f", "")


def text_name(path: Path) -> str:
    return path.name.split(".")[0]


def windows(tokenizer: Any, path: Path, count: int, length: int, extra: int = 0) -> Tensor:
    """`count` windows of `length + extra` tokens, starting at multiples of `length`, spread evenly over the text.

    No special tokens in between. Everybody calibrates and is scored on what this returns.
    """
    ids = torch.tensor(tokenizer(read(path), add_special_tokens=False, verbose=False)["input_ids"])
    total = (len(ids) - extra) // length
    if total < 1:
        raise SystemExit(f"{path} has {len(ids)} tokens, fewer than one window of {length + extra}")
    take = [int((i + 0.5) * total / count) for i in range(count)] if count < total else list(range(total))
    return torch.stack([ids[j * length : j * length + length + extra] for j in take])


# --- models ----------------------------------------------------------------------------------------------------------


def load(folder: Path | str, dtype: str = "float32") -> Any:
    from transformers import AutoModelForCausalLM, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=getattr(torch, dtype)).eval()


def load_tokenizer(folder: Path | str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


# --- bytes -----------------------------------------------------------------------------------------------------------


def headers(folder: Path) -> dict[str, dict[str, Any]]:
    """Name to {dtype, shape, data_offsets} of every tensor in the folder's safetensors files."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            found |= json.loads(opened.read(size))
    found.pop("__metadata__", None)
    return found


def stored(folder: Path, original: Path) -> tuple[float, int]:
    """(bits per weight over the linears of the blocks, bytes of all safetensors files on disk, headers included).

    A linear is a matrix of the original inside a numbered block; every tensor that the folder keeps under its name
    counts for it: codes, scales, zeros, shapes, indices. Its bias does not. Of a GGUF file its tensors are counted, and
    not its tokenizer, which nobody else has in the file.
    """
    from secateur.parts.gguf.read import is_gguf, open_gguf

    if is_gguf(folder):
        file = open_gguf(folder)
        blocks = [one for name, one in file.stored.items() if name.startswith("blk.") and len(one.shape) > 1]
        return 8 * sum(one.bytes for one in blocks) / sum(math.prod(one.shape) for one in blocks), file.bytes
    was = headers(original)
    inside = {n.removesuffix(".weight"): h for n, h in was.items() if len(h["shape"]) > 1 and re.search(r"\.\d+\.", n)}
    weights = sum(math.prod(h["shape"]) for h in inside.values())
    payload = 0
    for name, header in headers(folder).items():
        stem, _, last = name.rpartition(".")
        if last != "bias" and (stem in inside or name in inside):
            payload += header["data_offsets"][1] - header["data_offsets"][0]
    return 8 * payload / weights, sum(f.stat().st_size for f in folder.glob("*.safetensors"))
