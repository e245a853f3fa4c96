"""Matrices in standard ONNX: `DequantizeLinear` by blocks of 4- or 8-bit integers, then `MatMul` or `Gather`.

Every runtime of opset 21 reads that, with no operators of Microsoft's domain; ONNX Runtime makes one fused product of
the pair when it loads the file. Codes of a linear layer lie as inputs x outputs, blocks down the inputs, which is how
the pair is recognised; those of an embedding lie as they are, blocks along its rows. Even grids are signed integers,
others unsigned with zero points. Scales are stored in the model's own type and cast to float32 in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.export._blocks import BLOCKS
from secateur.export._dense import FLOATS
from secateur.export._graph import Kind
from secateur.export._write import Layout
from secateur.maths.packing import pack
from secateur.model.checkpoint import DTYPES
from secateur.parts.edits.int import Int
from secateur.types import Edit, Matrix

WIDTHS = (4, 8)
#: integers of 4 bits, by blocks: older opsets have neither
OPSET = 21


def refuses(edit: Edit) -> str | None:
    """Why the operators cannot hold an edit, in words, or None."""
    if not isinstance(edit, Int):
        return "standard ONNX dequantizes blocks of integers only"
    if edit.bits not in WIDTHS:
        return f"standard ONNX of opset {OPSET} has integers of 4 and 8 bits, not of {edit.bits}"
    if edit.group not in BLOCKS:
        some = ", ".join(map(str, BLOCKS))
        return f"its products are fused for groups of {some} inputs, not of {edit.group or 'a whole row'}"
    if edit.scale or edit.zero:
        return "standard ONNX takes 16- or 32-bit scales and whole-number zero points"
    return None


def kinds(matrix: Matrix, edit: Int, looked_up: bool) -> dict[str, Kind]:
    """What the graph takes a matrix's codes and zero points for: ONNX's type and shape, by name."""
    number = f"{'INT' if edit.symmetric else 'UINT'}{edit.bits}"
    codes, groups = (matrix.cols, matrix.rows), (edit.groups(matrix.cols), matrix.rows)
    if looked_up:
        codes, groups = codes[::-1], groups[::-1]
    out = {f"{matrix.key}.codes": (number, codes)}
    return out if edit.symmetric else out | {f"{matrix.key}.zero": (number, groups)}


def layout(matrix: Matrix, edit: Int, dtype: str, looked_up: bool) -> dict[str, Layout]:
    """Types and shapes of a matrix's tensors by name; `dtype` is torch's name of the model's own type."""
    out: dict[str, Layout] = {
        name: ("U8", (-(-math.prod(shape) * edit.bits // 8),))
        for name, (_, shape) in kinds(matrix, edit, looked_up).items()
    }
    scales = (edit.groups(matrix.cols), matrix.rows)
    out[f"{matrix.key}.scale"] = FLOATS[dtype], scales[::-1] if looked_up else scales
    return out


def encode(matrix: Matrix, edit: Int, tensors: Mapping[str, Tensor], dtype: str, looked_up: bool) -> dict[str, Tensor]:
    """Those tensors, from a matrix's codes, scales and zero points."""

    def laid(x: Tensor) -> Tensor:
        return (x if looked_up else x.mT).contiguous()

    levels = 2**edit.bits
    out = {
        f"{matrix.key}.{name}": pack(laid(tensors[name].to(torch.int16)).flatten() & (levels - 1), levels)
        for name in (("codes",) if edit.symmetric else ("codes", "zero"))
    }
    return out | {f"{matrix.key}.scale": laid(tensors["scale"].to(DTYPES[FLOATS[dtype]]))}


class Blocks(nn.Module):
    """A stored matrix, dequantized in the graph."""

    def __init__(self, matrix: Matrix, edit: Int, held: Mapping[str, Tensor], looked_up: bool):
        super().__init__()
        self.rows, self.cols, self.edit, self.by_rows = matrix.rows, matrix.cols, edit, looked_up
        for name in ("codes", "scale") if edit.symmetric else ("codes", "scale", "zero"):
            self.register_buffer(name, held[f"{matrix.key}.{name}"])

    def times(self, x: Tensor) -> Tensor:
        w = self.plain()
        return x @ (w.mT if self.by_rows else w)

    def looked_up(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.plain())

    def plain(self) -> Tensor:
        """The matrix in float32, inputs x outputs, or as it is where rows of it are looked up."""
        own: Any = self
        zero = [] if self.edit.symmetric else [own.zero]
        return torch.onnx.ops.symbolic(
            "DequantizeLinear",
            [own.codes, own.scale.float(), *zero],
            {"axis": 1 if self.by_rows else 0, "block_size": self.edit.group},
            dtype=torch.float32,
            shape=(self.rows, self.cols) if self.by_rows else (self.cols, self.rows),
            version=OPSET,
        )
