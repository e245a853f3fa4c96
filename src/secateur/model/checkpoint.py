"""A checkpoint on disk: what is in it (from the headers alone), and one tensor at a time.

Tensors are read, not memory-mapped: a mapped file counts as resident memory, and the promise is that peak memory is a
few blocks whatever the file's size. Pickles are never opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.types import ModelError

#: safetensors' names of the number types
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
}
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_LONGEST_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: `start` and `end` are bytes from the beginning of `file`."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.start

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """A folder in Hugging Face layout. Only headers are in memory."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Entry]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors, without headers."""
        return sum(entry.bytes for entry in self.tensors.values())

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """One tensor as stored, or some rows of it (along the first axis; one row is one expert of a 3-D tensor)."""
        entry = self.tensors[name]
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise ModelError(
                f"`{name}` in {entry.file.name} is stored as {entry.dtype}, which cannot be read here",
                "save the model in float16, bfloat16 or float32",
            )
        shape, start = entry.shape, entry.start
        if rows is not None:
            start += rows[0] * (entry.bytes // shape[0])
            shape = (rows[1] - rows[0], *shape[1:])
        out = torch.empty(shape, dtype=dtype)
        if out.numel():
            with entry.file.open("rb") as file:
                file.seek(start)
                if file.readinto(out.reshape(-1).view(torch.uint8).numpy()) != out.nbytes:  # pyright: ignore[reportArgumentType]
                    raise _truncated(entry.file)
        return out

    def check_finite(self, name: str) -> None:
        """ModelError if the tensor holds NaN or infinity, with the name and how many."""
        values = self.read(name)
        if not values.is_floating_point():
            return
        values = values.float() if values.itemsize == 1 else values  # torch knows no isfinite for FP8
        bad = values.numel() - int(torch.isfinite(values).sum())
        if bad:
            raise ModelError(
                f"`{name}` holds {bad} NaN or infinite value{'s' if bad > 1 else ''} of {values.numel()}",
                "the checkpoint is damaged or its training diverged; download or export it again",
            )

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same weights wherever they lie and however they are sharded.

        A hash of the config, of every tensor's name, type and shape, and of up to 4 KiB from its beginning, middle and
        end: cheap, and any retraining shows.
        """
        sha = hashlib.sha256(json.dumps(self.config, sort_keys=True, default=str).encode())
        for name, entry in sorted(self.tensors.items()):
            sha.update(f"{name} {entry.dtype} {entry.shape}\n".encode())
            with entry.file.open("rb") as file:
                for at in (0, entry.bytes // 2, max(0, entry.bytes - 4096)):
                    file.seek(entry.start + at)
                    sha.update(file.read(min(4096, entry.bytes - at)))
        return sha.hexdigest()[:32]


def open_checkpoint(model: str | Path, *, quantized: bool = False) -> Checkpoint:
    """Read the headers of a folder in Hugging Face layout, or of a model on the hub (downloaded first).

    `quantized=True` lets an already quantized checkpoint through (to measure it, not to cut it).
    """
    folder = _folder(str(model))
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ModelError(
            f"{folder} holds an adapter, not a model",
            "merge it first: `merge_and_unload()` in peft, then `save_pretrained`",
        )
    config = _json(folder / "config.json", "it has no config.json")
    if not isinstance(config, dict) or not ({"model_type", "architectures"} & set(config)):
        raise ModelError(f"{folder / 'config.json'} does not describe a model", "it needs at least `model_type`")
    if "quantization_config" in config and not quantized:
        kind = dict(config["quantization_config"] or {}).get("quant_method", "an unnamed method")
        raise ModelError(
            f"{folder} is already quantized ({kind})",
            f"turn it into plain weights first: `secateur export {model} --format safetensors -o plain`",
        )
    return Checkpoint(folder, config, open_tensors(folder))


def _folder(model: str) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{model} is a file, not a folder in Hugging Face layout", "give the folder it lies in")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model):
        raise ModelError(f"there is no folder {model}", "give a folder in Hugging Face layout, or a hub id `org/name`")
    return _download(model)


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except Exception as error:  # the hub's client has a dozen kinds, and raises httpx's and OSError's too
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"there is no folder {hub_id}, and the hub did not give a model of that name: {said}",
            "check the spelling, `hf auth login` for private models, or download it and give the folder",
        ) from error


def _json(path: Path, missing: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent} is not a model in Hugging Face layout: {missing}",
            "give the folder that holds config.json and the .safetensors files",
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON ({error})", "download or export the model again") from None


def open_tensors(folder: Path) -> dict[str, Entry]:
    """Every tensor of a folder in Hugging Face layout: one file, or shards and their index."""
    if (folder / INDEX).exists():
        return _sharded(folder)
    if (folder / SINGLE).exists():
        return read_header(folder / SINGLE)
    if sorted(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds .safetensors files but no {INDEX}", "download the index, or all of it again")
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder} holds only pickled weights ({pickles[0]}), which can run code and are never opened",
            "convert it where you trust it: `AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)`",
        )
    if sorted(folder.glob("*.gguf")):
        raise ModelError(f"{folder} holds GGUF files, which are already cut", "give the original model")
    raise ModelError(f"{folder} holds no weights: no {SINGLE} and no {INDEX}", "download or export the model again")


def _sharded(folder: Path) -> dict[str, Entry]:
    index = _json(folder / INDEX, f"it has no {INDEX}")
    where = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(where, dict) or not where:
        raise ModelError(f"{folder / INDEX} has no `weight_map`", "download or export the model again")
    headers: dict[str, dict[str, Entry]] = {}
    for shard in sorted(set(where.values())):
        if Path(shard).name != shard or not (folder / shard).exists():
            raise ModelError(f"{folder / INDEX} names {shard}, which is not there", "download the missing shard")
        headers[shard] = read_header(folder / shard)
    lost = [name for name, shard in where.items() if name not in headers[shard]]
    if lost:
        raise ModelError(
            f"{where[lost[0]]} lacks `{lost[0]}`{_more(lost)}, which {INDEX} says it holds",
            "index and shards are of different models; download all of it again",
        )
    return {name: headers[shard][name] for name, shard in where.items()}


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one .safetensors file: 8 bytes of length, a JSON header, then the data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if len(head) < 8 or (length <= _LONGEST_HEADER and 8 + length > size):
            raise _truncated(path)
        if not 2 <= length <= _LONGEST_HEADER:
            raise _corrupt(path, f"a header of {length} bytes")
        text = file.read(length)
    try:
        entries = json.loads(text)
        out = {
            name: Entry(
                item["dtype"], tuple(item["shape"]), path, *(8 + length + int(at) for at in item["data_offsets"])
            )
            for name, item in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(path, f"{type(error).__name__}: {error}") from None
    for name, entry in out.items():
        dtype = DTYPES.get(entry.dtype)
        if entry.start > entry.end or (dtype and entry.bytes != entry.size * dtype.itemsize):
            raise _corrupt(path, f"`{name}` of shape {list(entry.shape)} in {entry.bytes} bytes of {entry.dtype}")
    if max((entry.end for entry in out.values()), default=0) > size:
        raise _truncated(path)
    return out


def _truncated(path: Path) -> ModelError:
    return ModelError(
        f"{path} is truncated: the file ends before the tensors that its header lists ({path.stat().st_size} bytes)",
        "download or copy this file again",
    )


def _corrupt(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} has a corrupt header ({what})", "download or copy this file again")


def _more(names: Iterable[str]) -> str:
    n = len(list(names)) - 1
    return f" and {n} more" if n > 0 else ""
