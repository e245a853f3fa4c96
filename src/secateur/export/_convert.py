"""From one folder to another: an export back to plain weights, and the files that travel with a model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from secateur.export import find
from secateur.export._read import Reading, open_reading, tokenizer_of
from secateur.export._write import Layout, atomic, file_bytes, write_model
from secateur.model.checkpoint import DTYPES
from secateur.types import ExportError, Plan

#: tokenizer, chat template, generation settings, preprocessor, and what the licence asks to be passed on
COMPANIONS = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "chat_template*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "NOTICE*",
)


def companions(source: Path, out: Path) -> list[Path]:
    """Copy what belongs to a model beside its weights and config; returns what was copied."""
    copied = []
    for pattern in COMPANIONS:
        for file in sorted(source.glob(pattern)):
            if file.is_file() and out / file.name not in copied:
                with file.open("rb") as read, atomic(out / file.name) as write:
                    shutil.copyfileobj(read, write)
                copied.append(out / file.name)
    return copied


def export_folder(model: str | Path, format: str, out: str | Path) -> dict[str, Any]:
    """Write a model, cut or not, as plain safetensors or GGUF in its own number type.

    Returns what `cut` reports of an export: `format`, `files`, `bytes_on_disk`, and the bytes it had before.
    """
    if format == "gguf":
        from secateur.export._togguf import to_gguf

        reading = open_reading(model)
        written = to_gguf(reading, Path(out))
        companions(reading.folder, Path(out))
        return written | {"bytes_before": _bytes(reading)}
    target = find(format)
    if target.name != "safetensors":
        raise ExportError(
            f"a finished model is only turned into safetensors or gguf, not {format}: that takes data and a budget",
            f"secateur cut {model} --data FILE --budget '4.25 bits/weight' --format {format} -o {out}",
        )
    reading, out = open_reading(model), Path(out)
    if out.resolve() == reading.folder.resolve():
        raise ExportError(f"{out} is the model itself", "give another folder to -o")
    layouts: dict[str, Layout] = {name: (entry.dtype, entry.shape) for name, entry in reading.tensors.items()}
    files = write_model(out, layouts, lambda name: _tensor(reading, name))
    if not companions(reading.folder, out) and hasattr(reading, "tokenizer"):
        tokenizer_of(reading).save_pretrained(out)
    target.finish(out, dict(reading.config), Plan({}, {}, 0.0, 0.0, 0.0), ())
    written = sum(file.stat().st_size for file in files)
    if written != file_bytes(layouts):
        raise ExportError(f"{out} was priced at {file_bytes(layouts)} bytes and came to {written}")
    return {
        "format": target.name,
        "files": [file.name for file in files],
        "bytes_on_disk": written,
        "bytes_before": _bytes(reading),
    }


def _bytes(reading: Reading) -> int:
    return sum(file.stat().st_size for file in {entry.file for entry in reading.checkpoint.tensors.values()})


def _tensor(reading: Reading, name: str) -> Tensor:
    return reading.read(name).to(DTYPES[reading.tensors[name].dtype]).contiguous()
