"""Masks: which weights stay (True). Most ways to prune are a score (`scores.py`), a scope, and a schedule over these.

A scope is a tile of rows x cols in which weights compete: the whole matrix, a row `(1, cols)`, a group of inputs of it
`(1, g)`; N:M is the scope `(1, M)` with N kept. Higher scores stay; ties go to the one that comes first, row after row,
so that masks of one score are nested and two machines agree.

>>> import torch
>>> top(torch.tensor([[3.0, 1.0, 2.0, 2.0]]), 2).int()
tensor([[1, 0, 1, 0]], dtype=torch.int32)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def count(keep: float, n: int) -> int:
    """How many of `n` a share `keep` is: the nearest whole number, one at least."""
    return max(1, min(n, round(keep * n)))


def top(score: Tensor, kept: int, scope: tuple[int, int] | None = None) -> Tensor:
    """The `kept` highest scores of every tile of `scope` (of the whole matrix, where none is given)."""
    if scope is None:
        return _top(score.reshape(1, -1), kept).view_as(score)
    return untiled(_top(tiled(score, scope), kept), score.shape[1], scope)


def top_together(scores: Sequence[Tensor], kept: int) -> list[Tensor]:
    """The `kept` highest of all scores of several tensors, of any shapes: one global ranking."""
    mask = _top(torch.cat([score.flatten() for score in scores])[None], kept)[0]
    sizes = [score.numel() for score in scores]
    return [one.view_as(score) for one, score in zip(mask.split(sizes), scores, strict=True)]


def lifted(score: Tensor, least: int) -> Tensor:
    """The score with its `least` highest at infinity: whoever ranks it next keeps them, and needs to rank but once."""
    return torch.where(top(score, min(least, score.numel())), torch.inf, score) if least > 0 else score


def nested(score: Tensor, kept: Sequence[int]) -> list[Tensor]:
    """The masks of one ranking of the whole tensor at several levels: each holds all that a smaller one holds."""
    order = score.flatten().sort(descending=True, stable=True).indices
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return [(place < n).view_as(score) for n in kept]


def vote(masks: Sequence[Tensor], least: int) -> Tensor:
    """What at least so many masks keep: 1 is their union, all of them their intersection."""
    return torch.stack(list(masks)).sum(0) >= least


def tiled(x: Tensor, scope: tuple[int, int]) -> Tensor:
    """[rows, cols] as [tiles, weights in a tile], row after row; a ValueError where tiles do not fill it."""
    (rows, cols), (high, wide) = x.shape, scope
    if rows % high or cols % wide:
        raise ValueError(f"tiles of {high} x {wide} do not fill {rows} x {cols}")
    return x.reshape(rows // high, high, cols // wide, wide).transpose(1, 2).reshape(-1, high * wide)


def untiled(x: Tensor, cols: int, scope: tuple[int, int]) -> Tensor:
    """The matrix [rows, cols] of `tiled`."""
    high, wide = scope
    return x.reshape(-1, cols // wide, high, wide).transpose(1, 2).reshape(-1, cols)


def blocks(score: Tensor, kept: int, scope: tuple[int, int]) -> Tensor:
    """Whole tiles that stay: the `kept` with the highest sums of scores."""
    sums = tiled(score, scope).sum(1, keepdim=True)
    return untiled(top(sums, kept).expand(-1, scope[0] * scope[1]), score.shape[1], scope)


def _top(score: Tensor, kept: int) -> Tensor:
    """The `kept` highest along the last axis, of equal ones the first."""
    n = score.shape[-1]
    if not 0 <= kept <= n:
        raise ValueError(f"cannot keep {kept} of {n}")
    if kept in (0, n):
        return torch.full_like(score, kept == n, dtype=torch.bool)
    least = score.topk(kept, -1, sorted=False).values.amin(-1, keepdim=True)
    above, equal = score > least, score == least
    missing = kept - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= missing))
