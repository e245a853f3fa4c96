"""Reading a GGUF file as a model: names and settings back to transformers', tensors decoded one at a time.

A `GgufModel` stands where a `Checkpoint` stands, so a file of llama.cpp is measured, and cut to another budget, like
any other model. Block types that Secateur has are decoded by its own code, others by the `gguf` package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.maths.grids import blocks
from secateur.model.checkpoint import Entry
from secateur.parts.gguf import meta, vocab
from secateur.parts.gguf.names import ARCHS, expert_names, ggml_names, heads_of, is_norm, package, turned_back
from secateur.types import DataError, ModelError, PlanError

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def is_gguf(model: str | Path) -> bool:
    """Whether this is a .gguf file, or a folder with one and no other model."""
    path = Path(model).expanduser()
    if path.is_dir():
        return not (path / "config.json").exists() and any(path.glob("*.gguf"))
    return path.suffix == ".gguf" and path.exists()


@dataclass(frozen=True)
class Stored:
    """One tensor of the file: its type there, its shape as rows x cols, and where its bytes lie."""

    kind: str
    shape: tuple[int, ...]
    start: int
    bytes: int


@dataclass(frozen=True)
class GgufModel:
    """`tensors` has transformers' names and shapes; `read` decodes to float32, or gives what is stored in full."""

    file: Path
    metadata: Mapping[str, Any]
    stored: Mapping[str, Stored]

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def checkpoint(self) -> GgufModel:
        """Itself: what is on disk is decoded nowhere else."""
        return self

    @property
    def bytes(self) -> int:
        """Bytes of all tensors, without metadata."""
        return sum(one.bytes for one in self.stored.values())

    @cached_property
    def config(self) -> dict[str, Any]:
        shapes = {name: one.shape for name, one in self.stored.items()}
        slowed = self._raw("rope_freqs.weight").tolist() if "rope_freqs.weight" in shapes else ()
        return meta.config_of(self.metadata, shapes, slowed)

    @cached_property
    def tensors(self) -> dict[str, Entry]:
        """Entries as if they were stored in 16 bits where they are stored in fewer."""
        out = {}
        for name, parts in self._stacks.items():
            some = [self.stored[part] for part in parts]
            shape = (some[0].shape[0], sum(one.shape[1] for one in some), some[0].shape[2])
            kind = some[0].kind if {one.kind for one in some} <= {some[0].kind} & set(_FLOATS) else "F16"
            out[name] = Entry(kind, shape, self.file, some[0].start, some[0].start + sum(one.bytes for one in some))
        for name, theirs in self._names.items():
            one = self.stored[theirs]
            shape = one.shape[::-1] if self._transposed(theirs) else one.shape
            kind = one.kind if one.kind in _FLOATS else "F16"
            out[name] = Entry(kind, shape, self.file, one.start, one.start + one.bytes)
        return out

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        if name in self._stacks:
            x = torch.cat([self._raw(part) for part in self._stacks[name]], 1)
            return x if rows is None else x[rows[0] : rows[1]]
        theirs = self._names[name]
        x = self._raw(theirs)
        arch = ARCHS[self.config["model_type"]]
        heads = heads_of(theirs, tuple(x.shape), self.config.get("head_dim", 1)) if arch.turned else 0
        x = turned_back(x, heads) if heads else x
        x = x - arch.norms if is_norm(theirs) and arch.norms else x
        x = x.T.contiguous() if self._transposed(theirs) else x
        return x if rows is None else x[rows[0] : rows[1]]

    def _raw(self, theirs: str) -> Tensor:
        """A tensor by the file's own name, as it lies there, decoded."""
        one = self.stored[theirs]
        raw = np.fromfile(self.file, np.uint8, one.bytes, offset=one.start)
        if len(raw) != one.bytes:
            raise ModelError(f"{self.file} is truncated: it ends within `{theirs}`", "download or copy this file again")
        return _decoded(one, raw)

    def check_finite(self, name: str) -> None:
        values = self.read(name)
        bad = values.numel() - int(torch.isfinite(values).sum())
        if bad:
            said = f"holds {bad} NaN or infinite value{'s' if bad > 1 else ''} of {values.numel()}"
            raise ModelError(f"`{name}` {said}", "the file is damaged; download or export it again")

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same weights: a hash of the settings and of up to 4 KiB of every tensor."""
        sha = hashlib.sha256(json.dumps(dict(self.metadata), sort_keys=True, default=str).encode())
        with self.file.open("rb") as file:
            for name, one in sorted(self.stored.items()):
                sha.update(f"{name} {one.kind} {one.shape}\n".encode())
                file.seek(one.start)
                sha.update(file.read(min(4096, one.bytes)))
        return sha.hexdigest()[:32]

    def tokenizer(self) -> Any:
        """The one that lies beside the file, else the file's own."""
        from secateur.model.text import load_tokenizer

        try:
            return load_tokenizer(self.folder)
        except DataError:
            return vocab.tokenizer(self.metadata)

    @cached_property
    def _names(self) -> dict[str, str]:
        """transformers' name -> the file's, for every tensor that both have."""
        from secateur.model.load import skeleton

        parameters = skeleton(self).state_dict()  # type: ignore[arg-type]  # it asks for no more than there is here
        named = ggml_names(ARCHS[self.config["model_type"]], parameters, self.config_blocks)
        return {name: theirs for name, theirs in named.items() if theirs in self.stored and not expert_names(name)}

    @cached_property
    def _stacks(self) -> dict[str, tuple[str, ...]]:
        """transformers' name of a stack of experts -> the file's, whose rows follow each other."""
        from secateur.model.load import skeleton

        if ARCHS[self.config["model_type"]].renormed is None:
            return {}
        parameters = skeleton(self).state_dict()  # type: ignore[arg-type]  # as above
        return {name: names for name in parameters if (names := expert_names(name)) and names[0] in self.stored}

    @property
    def config_blocks(self) -> int:
        return int(self.metadata[f"{self.metadata['general.architecture']}.block_count"])

    def _transposed(self, theirs: str) -> bool:
        """GPT-2 keeps the matrices of its blocks inputs x outputs in transformers, and not here."""
        return self.config["model_type"] == "gpt2" and theirs.startswith("blk.") and len(self.stored[theirs].shape) == 2


def open_gguf(model: str | Path) -> GgufModel:
    """Read the header of a .gguf file, or of the only one in a folder."""
    path = Path(model).expanduser()
    files = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
    if len(files) != 1:
        raise ModelError(
            f"{path} holds {len(files)} GGUF files", "give the one that is meant; split files are not read"
        )
    gguf = package()
    try:
        reader = gguf.GGUFReader(str(files[0]))
        metadata = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        stored = {
            one.name: Stored(
                one.tensor_type.name, tuple(int(n) for n in reversed(one.shape)), int(one.data_offset), int(one.n_bytes)
            )
            for one in reader.tensors
        }
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{files[0]} is not a GGUF file, or is damaged ({said})", "download or copy it again"
        ) from None
    if "split.count" in metadata and int(metadata["split.count"]) > 1:
        raise ModelError(
            f"{files[0]} is one of {metadata['split.count']} files", "join them with llama-gguf-split --merge"
        )
    return GgufModel(files[0], metadata, stored)


def own_words(model: Any) -> dict[str, Any]:
    """What a GGUF file says of its tokenizer; nothing for other models, or where another lies beside the file."""
    if not isinstance(model, GgufModel) or (model.folder / "tokenizer.json").exists():
        return {}
    return {key: value for key, value in model.metadata.items() if key.startswith("tokenizer.")}


def logits(file: Path, tokens: Tensor) -> Tensor:
    """The file's logits as our network computes them, decoded block by block."""
    from secateur.model.stream import Stream

    stream = Stream(open_gguf(file))  # type: ignore[arg-type]  # it stands for a Checkpoint
    hidden = stream.embed(tokens)
    for i, path in enumerate(stream.blocks):
        with stream.loaded(path):
            stream.through(i, hidden, hidden)
    with torch.no_grad(), stream.tail() as tail:
        return torch.cat([tail(hidden[at : at + 1]) for at in range(len(tokens))])


def _decoded(one: Stored, raw: np.ndarray) -> Tensor:
    if one.kind in _FLOATS:
        return torch.from_numpy(raw).view(_FLOATS[one.kind]).view(one.shape)
    flat = torch.from_numpy(raw).view(int(np.prod(one.shape[:-1])), -1)
    if one.kind.lower() in blocks.KINDS:
        try:
            return blocks.decode(one.kind.lower(), flat).view(one.shape)
        except PlanError:  # a type that we do not have yet
            pass
    gguf = package()
    values = gguf.quants.dequantize(flat.numpy(), gguf.GGMLQuantizationType[one.kind])
    return torch.from_numpy(np.array(values, dtype=np.float32)).view(one.shape)
