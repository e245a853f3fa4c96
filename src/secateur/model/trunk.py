"""Trunks: channels that several layers add to and several read, as along a residual stage, found by tracing.

A trunk is everything that must have the same channels: what is added to one another, and what treats channels alike and
apart in between (normalisations, activations, pooling, depthwise layers). One channel of it is a row of every layer
that makes it and a column of every layer that mixes it. A shortcut that adds empty channels at both ends joins two
trunks: the wider one takes the narrower one's channels as its middle ones.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import nn

from secateur.model.coupled import APART, LAYERS, NORMS, Coupled, deep, flattens, keeps_channels, normalised_by

_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass(frozen=True)
class Trunk:
    """`width` channels that `makers` make together, that go one by one through `between` (normalisations and depthwise
    layers) and that `takers` mix; `inner` is the name of the trunk whose channels are its middle ones, by a shortcut.
    Paths of modules; it is called by its first maker."""

    name: str
    width: int
    makers: tuple[str, ...]
    between: tuple[str, ...]
    takers: tuple[str, ...]
    inner: str = ""

    @property
    def along(self) -> tuple[str, ...]:
        """Layers whose rows, and normalisations whose numbers, are its channels."""
        return (*self.makers, *self.between)


@dataclass(eq=False)
class _Flow:
    """A trunk while it is being found; `why` it cannot lose channels."""

    width: int = 0
    linear: bool = False
    makers: list[str] = field(default_factory=list)
    between: list[str] = field(default_factory=list)
    takers: list[str] = field(default_factory=list)
    inner: list[_Flow] = field(default_factory=list)
    why: str = ""
    into: _Flow | None = None

    @property
    def root(self) -> _Flow:
        return self if self.into is None else self.into.root

    def stop(self, why: str) -> None:
        self.root.why = self.root.why or why

    def join(self, other: _Flow) -> None:
        """What is added up has the same channels."""
        mine, theirs = self.root, other.root
        if mine is theirs:
            return
        if mine.width != theirs.width:
            why = "channels of different number are added"
            mine.stop(why)
            theirs.stop(why)
            return
        for name in ("makers", "between", "takers", "inner"):
            getattr(mine, name).extend(getattr(theirs, name))
        mine.why, mine.linear = mine.why or theirs.why, mine.linear or theirs.linear
        theirs.into = mine


def trunks(network: nn.Module, groups: Iterable[Coupled] = ()) -> tuple[tuple[Trunk, ...], dict[str, str]]:
    """Every trunk that can lose channels, in the order of the network, but for those of `groups`; and, by the first
    maker, why others cannot."""
    taken = {group.first for group in groups}
    graph = fx.symbolic_trace(network).graph
    modules = dict(network.named_modules())
    pads = bool(getattr(network, "shortcuts_by_width", False))
    flows: dict[fx.Node, _Flow] = {}
    made: list[_Flow] = []
    for node in graph.nodes:
        flows[node] = _flow(node, flows, modules, pads)
        made += [flows[node]] if flows[node].makers else []
    for node in graph.nodes:
        if node.op == "call_module" and sum(str(one.target) == str(node.target) for one in graph.nodes) > 1:
            flows[node].stop(f"`{node.target}` runs several times")
    roots = list(dict.fromkeys(flow.root for flow in made))
    found, why = [], {}
    for root in roots:
        first = root.makers[0]
        if first in taken:
            continue
        if not root.why and not root.takers:
            root.stop("its channels are not used")
        if root.why:
            why[first] = root.why
            continue
        inner = list(dict.fromkeys(one.root for one in root.inner))
        name = inner[0].makers[0] if inner else ""
        makers, between, takers = (tuple(dict.fromkeys(some)) for some in (root.makers, root.between, root.takers))
        found.append(Trunk(first, root.width, makers, between, takers, name))
    return tuple(found), why


def _flow(node: fx.Node, flows: dict[fx.Node, _Flow], modules: dict[str, Any], pads: bool) -> _Flow:
    """The trunk that a node's output belongs to."""
    given = [flows[one] for one in node.all_input_nodes]
    if node.op == "call_module":
        return _through(str(node.target), modules, node, given[0])
    if node.op in ("call_function", "call_method"):
        if node.target in _SUMS and len(given) == 2 and all(isinstance(one, fx.Node) for one in node.args[:2]):
            given[0].join(given[1])
            return given[0].root
        if node.target is F.pad:
            return _padded(node, given[0], pads)
        if len(given) == 1 and keeps_channels(node, given[0].root.linear):
            return given[0].root
    said = getattr(node.target, "__name__", str(node.target))
    for one in given:
        one.stop("they are the network's outputs" if node.op == "output" else f"`{said}` joins or reorders them")
    return _Flow(why=f"`{said}` makes them")


def _through(path: str, modules: dict[str, Any], node: fx.Node, given: _Flow) -> _Flow:
    module = modules[path]
    if isinstance(module, LAYERS) and not deep(module):
        given.root.takers.append(path)
        rows = len(module.weight)
        if getattr(module, "groups", 1) > 1:
            given.stop(f"`{path}` takes its channels in groups")
            return _Flow(rows, False, [path], why=f"`{path}` is a grouped convolution")
        if module.bias is None and not normalised_by(node, modules):
            given.stop(f"`{path}`, which mixes them, has neither a bias nor a normalisation")
        return _Flow(rows, isinstance(module, nn.Linear), [path])
    if deep(module) or isinstance(module, NORMS):
        given.root.between.append(path)
        return given.root
    if isinstance(module, APART) or (flattens(module) and not given.root.linear):
        return given.root
    given.stop(f"`{path}` ({type(module).__name__}) may mix its channels")
    return _Flow(why=f"`{path}` makes them")


def _padded(node: fx.Node, given: _Flow, pads: bool) -> _Flow:
    """Empty places around a picture change no channel; empty channels, (front, back), make a wider trunk."""
    around: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    if all(isinstance(one, int) for one in around) and not given.root.linear:
        if not any(around[4:]):
            return given.root
        if pads and len(around) == 6:
            return _Flow(given.root.width + around[4] + around[5], inner=[given.root])
    given.stop("`pad` puts channels beside them")
    return _Flow(why="`pad` makes them")
