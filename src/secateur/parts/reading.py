"""Reading models back without anybody's library, cut or not: every matrix decoded to float32, one at a time.

A `Reading` stands where a `Checkpoint` stands: `skeleton`, `anatomy`, `load_block` and `Stream` work with it, so a cut
model is measured block by block like an uncut one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateur.maths.packing import unpack, unpack_exponents, unpack_nibbles, unpack_words
from secateur.model.checkpoint import DTYPES, Checkpoint, Entry, open_checkpoint, read_header
from secateur.model.latent import KEYS, VALUES, caches, thin
from secateur.model.text import load_tokenizer
from secateur.parts import edits
from secateur.parts.edits import GridEdit, Part
from secateur.parts.edits.rank import Rank
from secateur.parts.gguf.read import is_gguf, open_gguf
from secateur.types import ModelError

_FLOATS = {str(DTYPES[name]).removeprefix("torch."): name for name in ("F16", "BF16", "F32")}
_PACKED = re.compile(r"packed(-\d{5}-of-\d{5})?\.safetensors")


class ForeignError(ModelError):
    """Quantized in a way that we cannot decode; transformers may."""


class Source(Protocol):
    """One tensor under its original name."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def read(self) -> Tensor: ...


@dataclass(frozen=True)
class Reading:
    """A model on disk, cut or not. `tensors` has the original names and shapes; `read` decodes to float32."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Entry]
    checkpoint: Checkpoint
    decoded: Mapping[str, Source]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors on disk, without headers."""
        return self.checkpoint.bytes

    @property
    def fingerprint(self) -> str:
        return self.checkpoint.fingerprint

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """One tensor, or some rows of it: decoded, or as stored when it was left as it is."""
        if name not in self.decoded:
            return self.checkpoint.read(name, rows)
        values = self.decoded[name].read()
        return values if rows is None else values[rows[0] : rows[1]]


def open_reading(folder: str | Path) -> Reading:
    """Read the headers of a model that may be cut: plain, packed, compressed-tensors (also by others), or GGUF."""
    if is_gguf(folder):
        return open_gguf(folder)  # type: ignore[return-value]  # it says and reads what a Reading does
    checkpoint = _open(folder)
    about = dict(checkpoint.config.get("quantization_config") or {})
    method = about.get("quant_method")
    if not about:
        decoded: dict[str, Source] = {}
    elif method == "secateur":
        decoded = _packed(checkpoint, about)
    elif method == "compressed-tensors" and not _beyond(about):
        decoded = _compressed(checkpoint, about)
    else:
        how = " ".join(filter(None, [str(method), _beyond(about)]))
        raise ForeignError(f"{folder} is quantized by {how}, which Secateur does not read", "give the original model")
    kind = _FLOATS.get(str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")), "F32")
    used = {name for name in checkpoint.tensors if _is_payload(name, decoded)}
    tensors = {name: entry for name, entry in checkpoint.tensors.items() if name not in used and name not in decoded}
    for name, source in decoded.items():
        tensors[name] = Entry(kind, source.shape, checkpoint.folder, 0, 0)
    return Reading(checkpoint.folder, checkpoint.config, tensors, checkpoint, decoded)


def open_uncut(model: str) -> Checkpoint:
    """A model that may be cut: plain weights in a folder or on the hub, or a GGUF file, decoded as it is read."""
    return open_gguf(model) if is_gguf(model) else open_checkpoint(model)  # type: ignore[return-value]  # as above


def tokenizer_of(model: Any) -> Any:
    """The tokenizer beside a model's weights, or in them."""
    return model.tokenizer() if hasattr(model, "tokenizer") else load_tokenizer(model.folder)


def _beyond(about: Mapping[str, Any]) -> str:
    """What a compressed-tensors file has beyond codes and scales, in words; empty if nothing."""
    if about.get("quantization_status", "compressed") != "compressed":
        return "without being compressed"
    if about.get("transform_config"):
        return "behind transforms"
    sparse = (about.get("sparsity_config") or {}).get("format", "dense")
    return "" if sparse == "dense" else f"with {sparse} sparsity"


def _open(folder: str | Path) -> Checkpoint:
    """As `open_checkpoint`, for packed weights under their own name as well."""
    _refuse_graphs(Path(folder))
    packed = sorted(file for file in Path(folder).glob("packed*") if _PACKED.fullmatch(file.name))
    if not packed or not (Path(folder) / "config.json").exists():
        return open_checkpoint(folder, quantized=True)
    entries = {name: entry for file in packed for name, entry in read_header(file).items()}
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    expected = packed[0].name.partition("-of-")[2].partition(".")[0]
    if expected and len(packed) != int(expected):
        raise ModelError(f"{folder} holds {len(packed)} of {int(expected)} packed files", "copy the missing ones")
    return Checkpoint(Path(folder), config, entries)


def _refuse_graphs(folder: Path) -> None:
    """ModelError for a folder of ours whose weights are inside a graph."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
    except (OSError, ValueError, AttributeError):
        return  # what is wrong with it is said where it is read
    form = about.get("format") if about.get("quant_method") == "secateur" else None
    if form in ("torch-export", "onnx"):
        hint = "its loss is in secateur.json beside it; measure the model that it was cut from, or a `packed` one"
        raise ModelError(f"{folder} holds a model as {form}, which is run, not read", hint)


def read_model(folder: str | Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a model under its original name, as float32 (whole numbers stay what they are)."""
    reading = open_reading(folder)
    for name in reading.tensors:
        value = reading.read(name)
        yield name, value.float() if value.is_floating_point() else value


def network(folder: str | Path, latents: bool = False) -> nn.Module:
    """The network of a model on disk, in float32, read by us. With `latents`, key and value projections of low rank
    are two thin matrices each, and `model.latent.latent_cache(network)` is a cache that keeps what lies between."""
    from secateur.model.anatomy import anatomy, load_block, skeleton

    reading = open_reading(folder)
    empty = skeleton(reading)  # type: ignore[arg-type]  # a Reading is all that it asks of a Checkpoint
    with torch.no_grad():
        made = load_block(reading, anatomy(reading, empty), "", empty).eval()  # type: ignore[arg-type]
        return thin(made, latents_of(reading)) if latents else made


def latents_of(reading: Reading) -> dict[str, tuple[Tensor, Tensor]]:
    """The two factors, [r, rows] and [r, cols], of every key and value projection of low rank, by its module."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, source in reading.decoded.items():
        path = name.removesuffix(".weight")
        if isinstance(source, _PackedMatrix) and isinstance(source.edit, Rank) and path.endswith((KEYS, VALUES)):
            found[path] = source.edit.factors(source.tensors())
    return found if caches(reading.config) else {}


_PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_global_scale")


def _is_payload(name: str, decoded: Mapping[str, Source]) -> bool:
    """Whether a stored tensor is part of a coded matrix (or of its tied twin) and no tensor of the model."""
    base, _, last = name.rpartition(".")
    return last in _PARTS or base in decoded or base.partition("#")[0] in decoded


@dataclass(frozen=True)
class _PackedMatrix:
    checkpoint: Checkpoint
    key: str
    edit: GridEdit
    shape: tuple[int, ...]
    transposed: bool

    def tensors(self) -> dict[str, Tensor]:
        """The stored parts, unpacked."""
        rows, cols = self.shape[::-1] if self.transposed else (self.shape[0], math.prod(self.shape[1:]))
        return {name: self._part(name, part) for name, part in self.edit.payload(rows, cols).items()}

    def read(self) -> Tensor:
        values = self.edit.decode(self.tensors())
        return values.T if self.transposed else values.reshape(self.shape)

    def _part(self, name: str, part: Part) -> Tensor:
        stored = self.checkpoint.read(f"{self.key}.{name}")
        if not part.levels:
            return stored
        return (unpack(stored, part.levels, math.prod(part.shape)) + part.low).reshape(part.shape)


@dataclass(frozen=True)
class _Stack:
    planes: tuple[Source, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.planes), *self.planes[0].shape)

    def read(self) -> Tensor:
        out = torch.empty(self.shape)
        for i, plane in enumerate(self.planes):
            out[i] = plane.read()
        return out


def _packed(checkpoint: Checkpoint, about: Mapping[str, Any]) -> dict[str, Source]:
    if about.get("version") != 1:
        raise ModelError(
            f"{checkpoint.folder} is packed in version {about.get('version')}, which this Secateur does not read",
            "upgrade secateur",
        )
    found: dict[str, Source] = {}
    stacks: dict[str, dict[int, Source]] = {}
    for key, one in about["matrices"].items():
        rows, cols = one["shape"]
        transposed = bool(one.get("transposed"))
        edit: Any = edits.parse(one["edit"])
        shape = (cols, rows) if transposed else tuple(one.get("stored") or (rows, cols))
        matrix = _PackedMatrix(checkpoint, key, edit, shape, transposed)
        name, _, index = key.partition("#")
        if index:
            stacks.setdefault(name, {})[int(index)] = matrix
        else:
            found[name] = matrix
    for name, planes in stacks.items():
        found[name] = _Stack(tuple(planes[i] for i in sorted(planes)))
    return found


@dataclass(frozen=True)
class _CompressedMatrix:
    """Decoded to float32 as transformers does it, which rounds 4-bit floats and experts on the way."""

    checkpoint: Checkpoint
    base: str
    args: Mapping[str, Any]
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        codes, scale = self._codes(), self._get("weight_scale")
        if scale.dtype == torch.uint8:
            scale = unpack_exponents(scale)
        if f"{self.base}.weight_global_scale" in self.checkpoint.tensors and self.args["type"] == "float":
            scale = scale.float() / self._get("weight_global_scale")
        if f"{self.base}.weight_zero_point" in self.checkpoint.tensors:
            codes = codes - self._spread(self._zero(scale))
        values = codes * self._spread(scale.float())
        kind = torch.bfloat16 if self.args["num_bits"] == 4 and self.args["type"] == "float" else None
        if self.args["type"] == "int" and re.search(r"\bexperts\.\d+\.", self.base):
            kind = scale.dtype
        return values.to(kind).float() if kind else values

    def _codes(self) -> Tensor:
        if f"{self.base}.weight" in self.checkpoint.tensors:
            return self._get("weight").float()
        packed, bits = self._get("weight_packed"), int(self.args["num_bits"])
        if self.args["type"] == "float":
            sizes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
            return torch.cat((sizes, -sizes))[unpack_nibbles(packed).long()]
        if packed.shape[1] != -(-self.shape[1] * bits // 32):
            raise ModelError(
                f"`{self.base}` in {self.checkpoint.folder} is packed as compressed-tensors did before 2026",
                "export it again with a newer compressed-tensors",
            )
        return unpack_words(packed, bits, self.shape[1]).float() - 2 ** (bits - 1)

    def _zero(self, scale: Tensor) -> Tensor:
        zero = self._get("weight_zero_point")
        if zero.dtype == torch.int32:
            bits = int(self.args["num_bits"])
            zero = unpack_words(zero.T.contiguous(), bits, scale.shape[0]).T.int() - 2 ** (bits - 1)
        return zero.float()

    def _spread(self, x: Tensor) -> Tensor:
        """One number for every weight, from one for a block, group, row or matrix."""
        rows, cols = self.shape
        x = x.reshape(1, 1) if x.numel() == 1 else x.reshape(x.shape[0], -1)
        tall, wide = self.args.get("block_structure") or (-(-rows // x.shape[0]), -(-cols // x.shape[1]))
        return x.repeat_interleave(tall, 0)[:rows].repeat_interleave(wide, 1)[:, :cols]

    def _get(self, part: str) -> Tensor:
        return self.checkpoint.read(f"{self.base}.{part}")


def _compressed(checkpoint: Checkpoint, about: Mapping[str, Any]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    groups = list(about.get("config_groups", {}).values())
    for name, entry in checkpoint.tensors.items():
        base, _, last = name.rpartition(".")
        coded = last == "weight_packed" or (last == "weight" and f"{base}.weight_scale" in checkpoint.tensors)
        if coded:
            args = _scheme(base, groups, checkpoint)["weights"]
            found[f"{base}.weight"] = _CompressedMatrix(checkpoint, base, args, _shape(checkpoint, base, entry, last))
    return found


def _scheme(base: str, groups: list[Mapping[str, Any]], checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The group of a module: by its name, by a pattern, or by its kind, in this order."""
    by_name = [g for g in groups if base in g["targets"]]
    patterns = [(t[3:], g) for g in groups for t in g["targets"] if t.startswith("re:")]
    by_kind = [g for g in groups if any("." not in t and not t.startswith("re:") for t in g["targets"])]
    found = by_name or [g for pattern, g in patterns if re.match(pattern, base)] or by_kind
    if not found:
        where = checkpoint.folder / "config.json"
        raise ModelError(f"no group in {where} says how `{base}` is quantized", "export it again")
    return found[0]


def _shape(checkpoint: Checkpoint, base: str, entry: Entry, last: str) -> tuple[int, ...]:
    if last == "weight":
        return entry.shape
    if f"{base}.weight_shape" in checkpoint.tensors:
        return tuple(checkpoint.read(f"{base}.weight_shape").tolist())
    return entry.shape[0], 2 * entry.shape[1]  # 4-bit floats, two in a byte
