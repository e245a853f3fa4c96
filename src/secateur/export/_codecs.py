"""How one coded matrix lies in a compressed-tensors file: its tensors' types and shapes, and what the reader is told.

A codec has three methods that must agree: `layout` announces what `encode` makes, and `scheme` says how to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from secateur.export._write import Layout
from secateur.maths.packing import pack_nibbles, pack_words
from secateur.model.checkpoint import DTYPES
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4
from secateur.types import Edit


class Codec(Protocol):
    """`dtype` is safetensors' name of the model's own number type; `shared` are the parts that a tied twin repeats."""

    @property
    def group(self) -> int: ...
    @property
    def shared(self) -> tuple[str, ...]: ...
    def layout(self, rows: int, cols: int, dtype: str) -> dict[str, Layout]: ...
    def encode(self, tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]: ...
    def scheme(self) -> dict[str, Any]: ...


def codec(edit: Edit, embedding: bool = False, zeros: str = "packed") -> Codec | None:
    """How this edit is stored, or None where the format has no such grid. Embeddings are not packed."""
    match edit:
        case Int() if embedding:
            return IntBytes(edit)
        case Int():
            return IntWords(edit, zeros)
        case Fp8():
            return Fp8Rows()
        case Mxfp4():
            return Fp4Groups("mxfp4-pack-quantized", 32, "U8")
        case Nvfp4():
            return Fp4Groups("nvfp4-pack-quantized", 16, "F8_E4M3", divided=True)
    return None


@dataclass(frozen=True)
class IntWords:
    """Integers in 32-bit words, row after row. The stored code counts from 0: the reader takes 2^(bits-1) off.

    Zero points are "packed" too, or "bytes": then the reader is told of blocks of 1 x group, whose zeros it does not
    unpack (transformers 5.23 expects them unpacked where they are packed, and so refuses the usual way). Fractional
    zero points are always bytes.
    """

    edit: Int
    zeros: str

    @property
    def group(self) -> int:
        return self.edit.group

    @property
    def shared(self) -> tuple[str, ...]:
        return ()  # a packed matrix has no twin: transformers does not load packed embeddings

    def layout(self, rows: int, cols: int, dtype: str) -> dict[str, Layout]:
        bits, groups = self.edit.bits, self.edit.groups(cols)
        out: dict[str, Layout] = {
            "weight_packed": ("I32", (rows, -(-cols * bits // 32))),
            "weight_scale": (_scale_type(self.edit, dtype), (rows, groups)),
            "weight_shape": ("I64", (2,)),
        }
        if not self.edit.symmetric:
            unpacked = "F8_E4M3" if self.edit.zero else "I8", (rows, groups)
            out["weight_zero_point"] = unpacked if self._blocks() else ("I32", (-(-rows * bits // 32), groups))
        return out

    def encode(self, tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
        bits, middle = self.edit.bits, 2 ** (self.edit.bits - 1)
        codes = tensors["codes"].to(torch.int16) + (middle if self.edit.signed else 0)
        out = {
            "weight_packed": pack_words(codes, bits),
            "weight_scale": tensors["scale"].to(DTYPES[_scale_type(self.edit, dtype)]),
            "weight_shape": torch.tensor(codes.shape),
        }
        if self.edit.zero:
            return {**out, "weight_zero_point": tensors["zero"].to(torch.float8_e4m3fn)}
        if not self.edit.symmetric:
            zero = tensors["zero"].to(torch.int16)
            out["weight_zero_point"] = (zero - middle).to(torch.int8) if self._blocks() else pack_words(zero.T, bits).T
        return out

    def scheme(self) -> dict[str, Any]:
        args = _int_args(self.edit)
        if self._blocks():
            args |= {"strategy": "block", "group_size": None, "block_structure": [1, self.edit.group]}
            args |= {"zp_dtype": "torch.float8_e4m3fn"} if self.edit.zero else {}
        return _scheme("pack-quantized", args)

    def _blocks(self) -> bool:
        return bool(self.edit.zero) or (not self.edit.symmetric and self.zeros == "bytes")


@dataclass(frozen=True)
class IntBytes:
    """8-bit integers one by one under the weight's own name, as transformers wants embeddings."""

    edit: Int

    @property
    def group(self) -> int:
        return self.edit.group

    @property
    def shared(self) -> tuple[str, ...]:
        return ("weight_scale",) if self.edit.symmetric else ("weight_scale", "weight_zero_point")

    def layout(self, rows: int, cols: int, dtype: str) -> dict[str, Layout]:
        groups = self.edit.groups(cols)
        out: dict[str, Layout] = {"weight": ("I8", (rows, cols))}
        out["weight_scale"] = _scale_type(self.edit, dtype), (rows, groups)
        return out if self.edit.symmetric else {**out, "weight_zero_point": ("I8", (rows, groups))}

    def encode(self, tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
        middle = 0 if self.edit.symmetric else 128
        out = {"weight": (tensors["codes"].to(torch.int16) - middle).to(torch.int8)}
        out["weight_scale"] = tensors["scale"].to(DTYPES[_scale_type(self.edit, dtype)])
        if self.edit.symmetric:
            return out
        return {**out, "weight_zero_point": (tensors["zero"].to(torch.int16) - middle).to(torch.int8)}

    def scheme(self) -> dict[str, Any]:
        return _scheme("int-quantized", _int_args(self.edit))


@dataclass(frozen=True)
class Fp8Rows:
    """8-bit floats under the weight's own name, a scale per row."""

    group: int = 0
    shared: tuple[str, ...] = ("weight_scale",)

    def layout(self, rows: int, cols: int, dtype: str) -> dict[str, Layout]:
        return {"weight": ("F8_E4M3", (rows, cols)), "weight_scale": (dtype, (rows, 1))}

    def encode(self, tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
        return {"weight": tensors["codes"], "weight_scale": tensors["scale"].to(DTYPES[dtype])}

    def scheme(self) -> dict[str, Any]:
        return _scheme("float-quantized", _args(8, "float", strategy="channel", group_size=None))


@dataclass(frozen=True)
class Fp4Groups:
    """4-bit floats two in a byte, a scale of 8 bits per group; NVFP4 has one more number that divides all scales."""

    format: str
    group: int
    scale: str
    divided: bool = False
    shared: tuple[str, ...] = ()

    def layout(self, rows: int, cols: int, dtype: str) -> dict[str, Layout]:
        out: dict[str, Layout] = {"weight_packed": ("U8", (rows, cols // 2))}
        out["weight_scale"] = self.scale, (rows, cols // self.group)
        return {**out, "weight_global_scale": ("F32", (1,))} if self.divided else out

    def encode(self, tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
        out = {"weight_packed": pack_nibbles(tensors["codes"]), "weight_scale": tensors["scale"]}
        return {**out, "weight_global_scale": tensors["global_scale"].reshape(1)} if self.divided else out

    def scheme(self) -> dict[str, Any]:
        strategy = "tensor_group" if self.divided else "group"
        kind = str(DTYPES[self.scale])
        args = _args(4, "float", strategy=strategy, group_size=self.group, scale_dtype=kind, zp_dtype=kind)
        return _scheme(self.format, args)


def _scale_type(edit: Int, dtype: str) -> str:
    return "F8_E4M3" if edit.scale else dtype


def _int_args(edit: Int) -> dict[str, Any]:
    strategy = {"strategy": "group" if edit.group else "channel", "group_size": edit.group or None}
    return _args(edit.bits, "int", edit.symmetric, **strategy)


def _args(bits: int, kind: str, symmetric: bool = True, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": kind, "symmetric": symmetric, "dynamic": False, **more}


def _scheme(format: str, weights: dict[str, Any]) -> dict[str, Any]:
    return {"weights": weights, "input_activations": None, "output_activations": None, "format": format}
