"""Plain tensors of a unit: how formats store what they leave as it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.export._write import Layout
from secateur.maths.grids import Coded
from secateur.parts.edits.half import Half
from secateur.parts.edits.keep import Keep
from secateur.types import Edit, Matrix, Unit

#: the number types that a model may have, by transformers' name
FLOATS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


def is_plain(edit: Edit) -> bool:
    """Whether weights stay numbers of their own, without codes: as they are, or in 16 bits."""
    return isinstance(edit, Keep | Half)


def plain_type(edit: Edit, dtype: str) -> str:
    """The number type that a plain edit leaves a unit in which was stored as `dtype`."""
    return "float16" if isinstance(edit, Half) else dtype


def stored_tensors(unit: Unit) -> dict[str, list[Matrix]]:
    """The unit's tensors in the checkpoint, each with its matrices (several when it is a stack of experts)."""
    found: dict[str, list[Matrix]] = {}
    for matrix in unit.matrices:
        found.setdefault(matrix.tensor, []).append(matrix)
    return found


def dense_layout(unit: Unit, dtype: str) -> dict[str, Layout]:
    """The unit's tensors under their own names and in their own shapes."""
    out = {}
    for name, matrices in stored_tensors(unit).items():
        first = matrices[0]
        shape = (first.cols, first.rows) if first.transposed else first.stored or (first.rows, first.cols)
        out[name] = FLOATS[dtype], shape if first.index is None else (len(matrices), *shape)
    return out


def dense_encode(unit: Unit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
    """The values of every matrix, back in the tensors they came from."""
    out = {}
    for name, matrices in stored_tensors(unit).items():
        planes = [coded[m.key].values for m in sorted(matrices, key=lambda m: m.index or 0)]
        planes = [plane.T if matrices[0].transposed else plane for plane in planes]
        tensor = planes[0] if matrices[0].index is None else torch.stack(planes)
        if matrices[0].stored:
            tensor = tensor.reshape(matrices[0].stored)
        out[name] = tensor.to(getattr(torch, dtype)).contiguous()
    return out


def dense_refuses(unit: Unit) -> str | None:
    """Why a unit's shape on disk cannot be told from its matrices, or None."""
    if unit.kind == "conv" and any(not m.stored for m in unit.matrices):
        return "a convolution whose matrix does not say the shape of its kernel"
    return None


def groups_refuse(unit: Unit, edit: Edit) -> str | None:
    """Why the groups of an edit do not fit the rows of a unit, or None."""
    group = getattr(edit, "group", 0)
    odd = sorted({m.cols for m in unit.matrices if group and m.cols % group})
    return f"rows of {odd[0]} do not divide into groups of {group}" if odd else None
