"""Supernets: one network that holds many, each the first channels, heads and blocks of the next.

An axis (width, heads, depth) has sizes, as shares of what there is; a slice takes one size of every axis, and of every
group of that axis the first so many. `sliced` lets a network be a slice for a while: its tensors are then really
smaller, so a pass costs what the small network costs, gradients fall on the shared weights, and outside the slice they
are zero. `state` is what is left to be written: the same numbers, so the exported network computes the same bits.
The whole network with the rest masked computes the same sums with zeros in them: equal where sums are exact, and to the
last bits of float32 elsewhere, as a longer sum is added up in another order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from secateur.model.families import recount
from secateur.model.resize import told
from secateur.types import ModelError

#: the axes there are
AXES = ("width", "heads", "depth")


@dataclass(frozen=True)
class Axis:
    """Something that can be of several sizes: shares of what there is, ascending, the last of them 1."""

    name: str
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Slice:
    """One size of every axis, as `(axis, share)`.

    >>> str(Slice((("width", 0.5), ("depth", 0.75))))
    'width 0.5, depth 0.75'
    """

    sizes: tuple[tuple[str, float], ...]

    def share(self, axis: str) -> float:
        return dict(self.sizes).get(axis, 1.0)

    def __str__(self) -> str:
        return ", ".join(f"{name} {share:g}" for name, share in self.sizes)


@dataclass(frozen=True)
class Lane:
    """An axis of a tensor along which a group's units lie: section after section, `per` places a unit in each."""

    tensor: str
    dim: int
    per: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Group:
    """`n` channels or heads of an axis, and the tensors that hold them; `counts` is an attention that counts heads."""

    axis: str
    n: int
    lanes: tuple[Lane, ...]
    counts: str = ""


@dataclass(frozen=True)
class Stack:
    """`n` blocks one behind the other in the container at `path`; the first of them stay."""

    path: str
    n: int


@dataclass(frozen=True)
class Supernet:
    """What of a network is elastic; `kind` is its `model_type` where transformers made it."""

    axes: tuple[Axis, ...]
    groups: tuple[Group, ...]
    stacks: tuple[Stack, ...] = ()
    kind: str = ""

    def grid(self) -> list[Slice]:
        """All slices, the smallest first and the whole network last."""
        names = [axis.name for axis in self.axes]
        sizes = product(*(axis.shares for axis in self.axes))
        return [Slice(tuple(zip(names, one, strict=True))) for one in sizes]


def full(axes: Sequence[Axis]) -> Slice:
    return Slice(tuple((axis.name, axis.shares[-1]) for axis in axes))


def least(axes: Sequence[Axis]) -> Slice:
    return Slice(tuple((axis.name, axis.shares[0]) for axis in axes))


def of(n: int, share: float) -> int:
    """A share of `n`, rounded up.

    >>> of(172, 0.25), of(5, 0.5), of(5, 0.2), of(3, 1.0)
    (43, 3, 1, 3)
    """
    return max(1, math.ceil(share * n - 1e-9))


def counts(net: Supernet, one: Slice) -> dict[str, str]:
    """How many a slice has of each axis, as in `86 of 172`; of several kinds of groups from the fewest to the most."""
    out = {}
    for name, share in one.sizes:
        sizes = {group.n for group in net.groups if group.axis == name}
        sizes |= {stack.n for stack in net.stacks} if name == "depth" else set()
        few, many = sorted({of(n, share) for n in sizes}), sorted(sizes)
        out[name] = f"{_span(few)} of {_span(many)}"
    return out


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def shapes(network: nn.Module, net: Supernet, one: Slice) -> dict[str, tuple[int, ...]]:
    """Every tensor of a slice and its shape, without making it."""
    cuts, gone = _cuts(net, one), _gone(net, one)
    found = {}
    for name, value in network.state_dict(keep_vars=True).items():
        if not name.startswith(gone):
            shape = list(value.shape)
            for dim, index in cuts.get(name, ()):
                shape[dim] = sum(stop - start for start, stop in index)
            found[name] = tuple(shape)
    return found


@contextmanager
def sliced(network: nn.Module, net: Supernet, one: Slice) -> Iterator[None]:
    """Inside, the network is a slice of itself; afterwards every tensor and number is again its own.

    Gradients reach the whole tensors. Statistics of a normalisation that is narrower are those of the slice while it
    lasts; what others gather in training mode they keep, as in any pass.
    """
    with ExitStack() as undo:
        cuts, gone = _cuts(net, one), _gone(net, one)
        for stack in net.stacks:
            undo.enter_context(_shorter(network, stack, of(stack.n, one.share("depth"))))
        by_module: dict[str, dict[str, list[tuple[int, Ranges]]]] = {}
        for name, some in cuts.items():
            path, _, leaf = name.rpartition(".")
            if not name.startswith(gone):
                by_module.setdefault(path, {})[leaf] = some
        for path, some in by_module.items():
            undo.enter_context(_narrower(network.get_submodule(path), some))
        for group in net.groups:
            if group.counts and of(group.n, one.share(group.axis)) < group.n and not group.counts.startswith(gone):
                undo.enter_context(_counted(net.kind, network.get_submodule(group.counts)))
        yield


def state(network: nn.Module, net: Supernet, one: Slice) -> dict[str, Tensor]:
    """The tensors of a slice, copied, by the names they have in a network of that size."""
    with sliced(network, net, one):
        return {name: value.detach().clone() for name, value in network.state_dict().items()}


def parse(text: str) -> dict[str, tuple[float, ...]]:
    """The axes that somebody asks for, with their sizes: quarters, or as many steps as stand behind a colon.

    >>> parse("width, depth:2")
    {'width': (0.25, 0.5, 0.75, 1.0), 'depth': (0.5, 1.0)}
    """
    found: dict[str, tuple[float, ...]] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, steps = word.partition(":")
        if name not in AXES or (steps and not 2 <= (int(steps) if steps.isdecimal() else 0) <= 64):
            raise ModelError(f"cannot read the axis `{word}`", f"there are {', '.join(AXES)}; width:8 is in eighths")
        n = int(steps or 4)
        found[name] = tuple((at + 1) / n for at in range(n))
    return found


# how a slice comes about


Ranges = tuple[tuple[int, int], ...]


def _cuts(net: Supernet, one: Slice) -> dict[str, list[tuple[int, Ranges]]]:
    """By tensor, what stays along which of its axes, as ranges."""
    found: dict[str, list[tuple[int, Ranges]]] = {}
    for group in net.groups:
        kept = of(group.n, one.share(group.axis))
        for lane in group.lanes if kept < group.n else ():
            starts = [group.n * sum(lane.per[:at]) for at in range(len(lane.per))]
            ranges = tuple((start, start + kept * per) for start, per in zip(starts, lane.per, strict=True))
            found.setdefault(lane.tensor, []).append((lane.dim, ranges))
    return found


def _gone(net: Supernet, one: Slice) -> tuple[str, ...]:
    """How the names of all begin that lies in a block which a slice has not."""
    share = one.share("depth")
    return tuple(f"{stack.path}.{at}." for stack in net.stacks for at in range(of(stack.n, share), stack.n))


def _some(value: Tensor, cuts: Sequence[tuple[int, Ranges]]) -> Tensor:
    for dim, ranges in cuts:
        parts = [value.narrow(dim, start, stop - start) for start, stop in ranges]
        value = parts[0] if len(parts) == 1 else torch.cat(parts, dim)
    return value.contiguous()


@contextmanager
def _narrower(module: Any, cuts: Mapping[str, Sequence[tuple[int, Ranges]]]) -> Iterator[None]:
    parameters, buffers = dict(module._parameters), dict(module._buffers)
    try:
        for leaf, some in cuts.items():
            if leaf in parameters:
                module._parameters[leaf] = _some(parameters[leaf], some)
            else:
                module._buffers[leaf] = _some(buffers[leaf], some).clone()
        told(module)
        yield
    finally:
        module._parameters.update(parameters)
        module._buffers.update(buffers)
        told(module)


@contextmanager
def _shorter(network: nn.Module, stack: Stack, kept: int) -> Iterator[None]:
    path, _, name = stack.path.rpartition(".")
    owner, whole = network.get_submodule(path), network.get_submodule(stack.path)
    if kept == stack.n:
        yield
        return
    setattr(owner, name, type(whole)(*_as_given(whole, kept)))
    getattr(owner, name).training = whole.training
    try:
        yield
    finally:
        setattr(owner, name, whole)


def _as_given(container: Any, kept: int) -> tuple[Any, ...]:
    """The first blocks as the container's class takes them."""
    some = list(container)[:kept]
    return tuple(some) if isinstance(container, nn.Sequential) else (some,)


@contextmanager
def _counted(kind: str, attention: Any) -> Iterator[None]:
    before = dict(attention.__dict__)
    try:
        recount(kind, attention)
        yield
    finally:
        attention.__dict__.clear()
        attention.__dict__.update(before)
