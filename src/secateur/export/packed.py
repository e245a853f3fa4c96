"""Our own file: the codes of any edit packed at their true width, scales as they are. Only Secateur reads it.

For grids that no runtime knows (ternary at 1.6 bits, codebooks), embeddings below 8 bits, and architectures that other
formats refuse. The weights are `packed.safetensors`, or shards of that name: transformers, which would take codes for
weights that are missing and make them up, then says that there is no model. Beside plain tensors, a matrix `name` on a
grid is `name.codes`, `name.scale` and so on, whole numbers as bytes without gaps. config.json says which edit it has:

    "quantization_config": {"quant_method": "secateur", "format": "packed", "version": 1,
                            "matrices": {name: {"edit": "int(bits=3, group=64)", "shape": [rows, cols], ...}}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.export._dense import FLOATS, dense_encode, dense_layout, dense_refuses, groups_refuse
from secateur.export._menu import usual
from secateur.export._shards import Shards
from secateur.export._verify import compare
from secateur.export._vision import is_vision, verify_vision
from secateur.export._write import Layout, write_config
from secateur.maths.grids import Coded
from secateur.maths.packing import pack, packed_bytes
from secateur.model.anatomy import Anatomy
from secateur.model.checkpoint import DTYPES
from secateur.parts.edits import GridEdit, Part, text
from secateur.parts.edits.keep import Keep
from secateur.types import Edit, Plan, Unit

VERSION = 1
#: tokens that are read one by one when a cache is checked
_STEPS = 8


@dataclass(frozen=True)
class Packed:
    """Holds any edit that says what its payload is; the sizes of `anatomy` may ask for groups of their own."""

    anatomy: Anatomy | None = None
    name: str = "packed"
    disk: ClassVar[Shards] = Shards("packed")
    tensors_apart: ClassVar[bool] = True
    pictures: ClassVar[bool] = True
    shapes: ClassVar[str] = "any"
    forms: ClassVar[bool] = True
    latents: ClassVar[bool] = True

    def edits(self) -> tuple[Edit, ...]:
        return usual(self.anatomy)

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        if not hasattr(edit, "payload"):
            return "this edit does not say what it would store"
        return dense_refuses(unit) or groups_refuse(unit, edit)

    def alike(self, units: Sequence[Unit]) -> tuple[tuple[str, ...], ...]:
        """Every unit is read on its own."""
        return ()

    def layout(self, unit: Unit, edit: GridEdit, dtype: str) -> dict[str, Layout]:
        if isinstance(edit, Keep):
            return dense_layout(unit, dtype)
        return {
            f"{m.key}.{name}": _layout(part, dtype)
            for m in unit.matrices
            for name, part in edit.payload(m.rows, m.cols).items()
        }

    def encode(self, unit: Unit, edit: GridEdit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
        if isinstance(edit, Keep):
            return dense_encode(unit, coded, dtype)
        return {
            f"{m.key}.{name}": _encode(part, coded[m.key].tensors[name], dtype)
            for m in unit.matrices
            for name, part in edit.payload(m.rows, m.cols).items()
        }

    def seen(self, unit: Unit, edit: Edit, values: Tensor, dtype: str) -> Tensor:
        return values

    def finish(self, folder: Path, config: Mapping[str, Any], plan: Plan, units: Sequence[Unit]) -> None:
        """Write config.json, last of all: a folder that has one is complete."""
        matrices: dict[str, dict[str, Any]] = {}
        for unit in units:
            edit = plan.edits[unit.name]
            if not isinstance(edit, Keep):
                for m in unit.matrices:
                    matrices[m.key] = {"edit": text(edit), "shape": [m.rows, m.cols]}
                    matrices[m.key] |= {"transposed": True} if m.transposed else {}
                    matrices[m.key] |= {"stored": list(m.stored)} if m.stored else {}
        about = {"quant_method": "secateur", "format": "packed", "version": VERSION, "matrices": matrices}
        write_config(folder, {**config, "quantization_config": about})

    def verify(self, folder: Path, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        """Our own reader, and the network that transformers builds from the config.

        Without reference logits every tensor is read and decoded, and compared with nothing: `logit_error` is None.
        """
        from secateur import __version__
        from secateur.export._read import network, read_model

        if is_vision(folder):
            return verify_vision(folder, reference_logits, tokens)
        said = f"secateur {__version__}"
        if reference_logits is None:
            n = sum(1 for _ in read_model(folder))
            return {"verified_in": f"{said} ({n} tensors read, nothing compared)", "logit_error": None}
        with torch.no_grad():
            logits = network(folder)(tokens).logits
        told = {"verified_in": said, "logit_error": compare(logits, reference_logits, folder)}
        return told | _in_latents(folder, reference_logits, tokens)


def _in_latents(folder: Path, reference_logits: Tensor, tokens: Tensor) -> dict[str, Any]:
    """Where keys or values have low ranks: what a token leaves in a cache of latents, in bytes at 16 bits a number, and
    how far the logits of a text read half at once and then token by token are from those of the whole."""
    from secateur.model.latent import latent_cache, numbers
    from secateur.parts.reading import latents_of, network, open_reading

    if not latents_of(open_reading(folder)):
        return {}
    whole, half = network(folder, latents=True), tokens.shape[1] // 2
    cache, ends = latent_cache(whole), range(half, min(half + _STEPS, tokens.shape[1]) + 1)
    with torch.no_grad():
        starts = (0, *ends)
        pieces = [whole(tokens[:1, a:b], past_key_values=cache).logits for a, b in zip(starts, ends, strict=False)]
    error = compare(torch.cat(pieces, 1), reference_logits[:1, : ends[-1]], folder)
    return {"cache_logit_error": error, "cache_bytes_per_token": 2 * numbers(cache)}


def load(folder: str | Path) -> dict[str, Tensor]:
    """Every tensor of a packed model under its original name, decoded to float32."""
    from secateur.export._read import read_model

    return dict(read_model(folder))


def _layout(part: Part, dtype: str) -> Layout:
    if part.levels:
        return "U8", (packed_bytes(math.prod(part.shape), part.levels),)
    return part.dtype or FLOATS[dtype], part.shape


def _encode(part: Part, tensor: Tensor, dtype: str) -> Tensor:
    if part.levels:
        return pack(tensor.int() - part.low, part.levels)
    return tensor.to(DTYPES[part.dtype or FLOATS[dtype]]).reshape(part.shape).contiguous()
