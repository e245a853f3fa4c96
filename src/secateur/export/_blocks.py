"""Matrices in ONNX Runtime's own blocks: how they lie, and the two operators that compute with them as they lie.

`MatMulNBits` and `GatherBlockQuantized` of the domain com.microsoft take 2-, 4- or 8-bit codes counted from 0, rows of
blocks of a power of two from 16, lowest bits first; a scale for each block and, unless it is the middle of the codes, a
zero point, packed by rows. Scales are stored in the model's own type and cast to float32 in the graph, which the
runtime does once, when it loads: half the bytes of float32 scales, at the same speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.export._dense import FLOATS
from secateur.export._graph import Kind
from secateur.export._write import Layout
from secateur.maths.packing import pack
from secateur.model.checkpoint import DTYPES
from secateur.parts.edits.int import Int
from secateur.types import Edit, Matrix

WIDTHS = (2, 4, 8)
BLOCKS = (16, 32, 64, 128, 256)
#: the operator's `accuracy_level`: inputs rounded to 8 bits by blocks, or taken as they are
ROUNDED, EXACT = 4, 0


def refuses(edit: Edit) -> str | None:
    """Why the operators cannot hold an edit, in words, or None."""
    if not isinstance(edit, Int):
        return "ONNX Runtime multiplies by blocks of integers only"
    if edit.bits not in WIDTHS:
        return f"ONNX Runtime runs integers of 2, 4 and 8 bits, not of {edit.bits}"
    if edit.group not in BLOCKS:
        return (
            f"ONNX Runtime takes groups of {', '.join(map(str, BLOCKS))} inputs, not of {edit.group or 'a whole row'}"
        )
    if edit.scale or edit.zero:
        return "ONNX Runtime takes 16- or 32-bit scales and whole-number zero points"
    return None


def layout(matrix: Matrix, edit: Int, dtype: str, looked_up: bool = False) -> dict[str, Layout]:
    """Types and shapes of a matrix's tensors by name; `dtype` is torch's name of the model's own type. Matrices that
    are looked up lie as all others do."""
    groups = edit.groups(matrix.cols)
    out: dict[str, Layout] = {
        f"{matrix.key}.codes": ("U8", (matrix.rows, groups, edit.group * edit.bits // 8)),
        f"{matrix.key}.scale": (FLOATS[dtype], (matrix.rows, groups)),
    }
    if not edit.symmetric:
        out[f"{matrix.key}.zero"] = "U8", (matrix.rows, -(-groups * edit.bits // 8))
    return out


def encode(
    matrix: Matrix, edit: Int, tensors: Mapping[str, Tensor], dtype: str, looked_up: bool = False
) -> dict[str, Tensor]:
    """Those tensors, from a matrix's codes, scales and zero points."""
    made = layout(matrix, edit, dtype)
    levels, middle = 2**edit.bits, 2 ** (edit.bits - 1) if edit.symmetric else 0
    codes = pack(tensors["codes"].to(torch.int16) + middle, levels)
    out = {
        f"{matrix.key}.codes": codes.reshape(made[f"{matrix.key}.codes"][1]),
        f"{matrix.key}.scale": tensors["scale"].to(DTYPES[FLOATS[dtype]]).contiguous(),
    }
    if not edit.symmetric:
        zero = tensors["zero"].to(torch.int16)
        whole = nn.functional.pad(zero, (0, -zero.shape[1] % (8 // edit.bits)))  # every row fills its last byte
        out[f"{matrix.key}.zero"] = pack(whole, levels).reshape(made[f"{matrix.key}.zero"][1])
    return out


def kinds(matrix: Matrix, edit: Int, looked_up: bool) -> dict[str, Kind]:
    """The operators take all that is packed for bytes, as it is."""
    return {}


class Blocks(nn.Module):
    """A stored matrix, and what every operator must be told of it."""

    def __init__(self, matrix: Matrix, edit: Int, held: Mapping[str, Tensor], looked_up: bool = False):
        super().__init__()
        self.rows, self.cols, self.edit = matrix.rows, matrix.cols, edit
        for name in ("codes", "scale") if edit.symmetric else ("codes", "scale", "zero"):
            self.register_buffer(name, held[f"{matrix.key}.{name}"])

    def operands(self) -> list[Tensor]:
        """Codes, scales and zero points, where there are any."""
        own: Any = self
        return [own.codes, own.scale.float()] + ([] if self.edit.symmetric else [own.zero])

    def times(self, x: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            [x, *self.operands()],
            {
                "K": self.cols,
                "N": self.rows,
                "bits": self.edit.bits,
                "block_size": self.edit.group,
                "accuracy_level": ROUNDED,
            },
            dtype=x.dtype,
            shape=(*x.shape[:-1], self.rows),
            version=1,
        )

    def looked_up(self, ids: Tensor) -> Tensor:
        codes, scale, *zero = self.operands()
        return torch.onnx.ops.symbolic(
            "com.microsoft::GatherBlockQuantized",
            [codes.flatten(1), ids, scale, *zero],
            {"bits": self.edit.bits, "block_size": self.edit.group, "gather_axis": 0, "quantize_axis": 1},
            dtype=torch.float32,
            shape=(*ids.shape, self.cols),
            version=1,
        )
