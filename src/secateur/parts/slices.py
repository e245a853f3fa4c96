"""Which slices of a supernet the passes of a step train: policies, by name.

Each takes the axes, how many passes the step has and a source of chance, and gives a slice for every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from secateur.model.elastic import Axis, Slice, full, least
from secateur.types import SecateurError

Policy = Callable[[Sequence[Axis], int, torch.Generator], list[Slice]]


def uniform(axes: Sequence[Axis], n: int, draw: torch.Generator) -> list[Slice]:
    """Every size of every axis as often as any other, passes and axes apart."""
    return [Slice(tuple((axis.name, _any(axis, draw)) for axis in axes)) for _ in range(n)]


def sandwich(axes: Sequence[Axis], n: int, draw: torch.Generator) -> list[Slice]:
    """The whole network, the smallest slice, and between them any (Universally Slimmable Networks, 1903.05134)."""
    return [full(axes), least(axes), *uniform(axes, max(n - 2, 0), draw)][:n]


def fair(axes: Sequence[Axis], n: int, draw: torch.Generator) -> list[Slice]:
    """Of every axis all sizes once before any comes again, in an order of chance (FairNAS, 1907.01845): with as many
    passes as sizes each step trains them equally often."""
    columns = []
    for axis in axes:
        rounds = [torch.randperm(len(axis.shares), generator=draw) for _ in range(-(-n // len(axis.shares)))]
        columns.append([axis.shares[int(at)] for at in torch.cat(rounds)[:n]])
    return [Slice(tuple((a.name, c[i]) for a, c in zip(axes, columns, strict=True))) for i in range(n)]


def whole(axes: Sequence[Axis], n: int, draw: torch.Generator) -> list[Slice]:
    """Always all of it: an ordinary training."""
    return [full(axes)] * n


POLICIES: dict[str, Policy] = {"uniform": uniform, "sandwich": sandwich, "fair": fair, "whole": whole}


def policy(name: str) -> Policy:
    """The policy of this name."""
    if name not in POLICIES:
        raise SecateurError(f"there is no policy `{name}`", f"there are {', '.join(POLICIES)}")
    return POLICIES[name]


def _any(axis: Axis, draw: torch.Generator) -> float:
    return axis.shares[int(torch.randint(len(axis.shares), (), generator=draw))]
