"""What an edit that takes channels or heads away leaves of a unit: its matrices, and which rows and columns of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from secateur.maths.channels import Removal, swift
from secateur.model.factors import Factors
from secateur.model.matrix import place
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.each import Each
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.heads import Heads
from secateur.parts.edits.keep import Keep
from secateur.parts.experts import by_expert, first
from secateur.types import Edit, Matrix, Unit

#: edits that say by themselves what becomes of the weights that stay
Shaping = Channels | Heads | Experts | Each


def narrowed(unit: Unit, edit: Edit) -> tuple[Unit, Edit]:
    """The unit with the matrices that stay, and the edit that is theirs; as they are where nothing goes."""
    if isinstance(edit, Drop):
        return replace(unit, matrices=(), vectors=()), Keep()
    if not isinstance(edit, Shaping):
        return unit, edit
    if unit.side is None:
        return (unit, edit.side(-1)) if isinstance(edit, Each) else (_coupled(unit, edit), edit.side(-1))
    inner, n = edit.side(unit.side.at), count(unit)
    if isinstance(edit, Each) or not n:
        return unit, inner
    left = edit.left(n)
    if unit.side.by == "experts":
        return first(unit, left), inner
    if unit.side.mixes:
        return replace(unit, matrices=tuple(replace(m, cols=m.cols // n * left) for m in unit.matrices)), inner
    return replace(unit, matrices=tuple(replace(m, rows=m.rows // n * left) for m in unit.matrices)), inner


def count(unit: Unit) -> int:
    """How many channels (KV heads, experts) a unit makes or mixes, all units of its kind alike; 0 where none can go."""
    if unit.side is None:
        return unit.matrices[0].rows if unit.kind == "channels" else 0
    if unit.side.by == "experts":
        return len(by_expert(unit))
    if not unit.side.per:
        return 0
    first = unit.matrices[0]
    return (first.cols if unit.side.mixes else first.rows) // sum(unit.side.per[0])


def stays(unit: Unit, matrix: Matrix, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of a matrix of the unit that stay, when the channels (KV heads) `kept` do."""
    every_row, every_col = torch.arange(matrix.rows), torch.arange(matrix.cols)
    if unit.side is None:
        if matrix == unit.matrices[-1]:
            return every_row, columns(kept, matrix.cols // unit.matrices[0].rows)
        return kept, every_col
    assert unit.side.by != "experts", "experts are no rows or columns"
    some = _sections(kept, unit.side.per[unit.matrices.index(matrix)], count(unit))
    return (every_row, some) if unit.side.mixes else (some, every_col)


def vector_stays(unit: Unit, name: str, kept: Tensor) -> Tensor:
    """Which numbers of one of a unit's vectors stay: those of the rows whose bias they are, else one a channel."""
    own = next((m for m in unit.matrices if is_bias(name, m)), None)
    return kept if unit.side is None or own is None else stays(unit, own, kept)[0]


def removal(unit: Unit, w: Tensor, factors: Factors) -> Removal:
    """The order in which the channels (KV heads) of a unit that mixes them go; `w` is its matrix."""
    assert unit.side is not None and unit.side.mixes
    return swift(w, factors.a.to(w.device), factors.g.to(w.device), sum(unit.side.per[0]))


def bears(unit: Unit, factors: Mapping[str, Factors]) -> Tensor:
    """What each channel (KV head) of a unit bears of the damage when all of it is rounded alike, [channels]: of rows
    that make it the diagonal of G, of columns that mix it that of A. Those that go first bear the least, so that fewer
    channels save less of this damage than of the weights."""
    assert unit.side is not None
    n, total = count(unit), torch.zeros(count(unit), dtype=torch.float64)
    for m, per in zip(unit.matrices, unit.side.per, strict=True):
        one = factors[m.key].a if unit.side.mixes else factors[m.key].g
        diagonal = (one if one.ndim == 1 else one.diagonal()).double().cpu()
        sections = diagonal.split([n * width for width in per])
        total += torch.stack([section.view(n, -1).sum(1) for section in sections]).sum(0)
    return total


def columns(kept: Tensor, per: int) -> Tensor:
    """The columns of channels, `per` for each."""
    return (kept[:, None] * per + torch.arange(per)).flatten()


def _sections(kept: Tensor, per: tuple[int, ...], n: int) -> Tensor:
    """Rows of what is kept in sections one below the other, each with `per` rows for each of `n`."""
    starts = [n * sum(per[:i]) for i in range(len(per))]
    return torch.cat([start + columns(kept, width) for start, width in zip(starts, per, strict=True)])


def told(before: Sequence[Unit], after: Sequence[Unit]) -> dict[str, Any]:
    """What a reader must know to build the network: the parameters that are smaller, and the parts that are gone.
    Empty where nothing is."""
    shapes: dict[str, list[int]] = {}
    gone: dict[str, dict[str, Any]] = {}
    for was, now in zip(before, after, strict=True):
        if was.side is None or was.side.by == "block":  # a network with fewer blocks is told by its config
            continue
        if was.side.by == "experts":
            shapes |= _stacks(was, now)
            continue
        if was.matrices and not now.matrices:
            part = gone.setdefault(was.side.part, {"makers": [], "mixer": "", "rows": 0, "also": []})
            if was.side.mixes:
                part |= {"mixer": place(was.matrices[0]).module, "rows": was.matrices[0].rows}
            else:
                part["makers"] += [place(m).module for m in was.matrices]
            part["also"] += was.side.also
        for m, one in zip(was.matrices, now.matrices, strict=False):
            if one != m:
                shapes[place(m).parameter] = [one.cols, one.rows] if m.transposed else [one.rows, one.cols]
                if m.rows != one.rows and any(is_bias(name, m) for name in was.vectors):
                    shapes[f"{place(m).module}.bias"] = [one.rows]
    return {"shapes": shapes, "gone": gone} if shapes or gone else {}


def _stacks(was: Unit, now: Unit) -> dict[str, list[int]]:
    """Parameters of a layer of experts that are smaller: stacks, and the router's rows."""
    n, side = count(now), was.side
    if n == count(was) or side is None:
        return {}
    one = by_expert(now)[0]
    stack = [n, sum(m.rows for m in one), one[0].cols]
    return {place(one[0]).parameter: stack} | ({f"{side.router}.weight": [n, one[0].cols]} if side.router else {})


def is_bias(name: str, matrix: Matrix) -> bool:
    return matrix.tensor.removesuffix("weight") == name.removesuffix("bias")


def _coupled(unit: Unit, edit: Channels | Heads | Experts) -> Unit:
    """Coupled layers of an image model with fewer channels."""
    first, *between, last = unit.matrices
    n, per = edit.left(first.rows), last.cols // first.rows
    made = [_rows(m, n) for m in (first, *between)]
    stored = (last.rows, n, *last.stored[2:]) if last.stored else ()
    return replace(unit, matrices=(*made, replace(last, cols=n * per, stored=stored)))


def _rows(matrix: Matrix, n: int) -> Matrix:
    return replace(matrix, rows=n, stored=(n, *matrix.stored[1:]) if matrix.stored else ())
