"""Channels that can go: where a layer's outputs are another layer's inputs and nobody else's.

The network is traced (torch.fx), and from every convolution and linear layer one follows its output through what treats
channels alike and apart (normalisation, activation, pooling, depthwise convolutions) to the layer that mixes them. An
output that is added to others (a residual stream), split, or reshaped is left alone, and said why.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import nn

from secateur.types import Unit

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
APART = (
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.LeakyReLU,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
_FUNCTIONS = (
    torch.relu,
    F.relu,
    F.relu6,
    F.silu,
    F.gelu,
    F.hardswish,
    F.leaky_relu,
    F.dropout,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
)
_METHODS = ("relu", "relu_", "contiguous", "clone")


@dataclass(frozen=True)
class Coupled:
    """Channels that are made by `first`, go one by one through `between` (depthwise layers and normalisations, in
    order), and are mixed by `last`, whose outputs `after` normalises ("" where `last` has a bias). Paths of modules."""

    first: str
    between: tuple[str, ...]
    last: str
    after: str = ""


class _End(Exception):  # no error: it says why a way ends
    """Why the channels of a layer cannot be followed to one that mixes them."""


def coupled(network: nn.Module) -> tuple[tuple[Coupled, ...], dict[str, str]]:
    """Every group of channels that can go, in the order of the network; and, by layer, why its outputs cannot."""
    layers = [path for path, module in network.named_modules() if isinstance(module, LAYERS)]
    try:
        graph = fx.symbolic_trace(network).graph
    except Exception as error:  # tracing runs the network's own code on stand-ins, which can fail in any way
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return (), dict.fromkeys(layers, f"the network cannot be traced ({said})")
    modules = dict(network.named_modules())
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    found, why = [], {}
    for path, nodes in calls.items():
        if path not in layers or deep(modules[path]):
            continue
        try:
            if len(nodes) > 1:
                raise _End("it runs several times")
            if getattr(modules[path], "groups", 1) > 1:
                raise _End("it is a grouped convolution")
            found.append(_follow(nodes[0], modules, path))
        except _End as end:
            why[path] = str(end)
    return tuple(found), why


def apart(groups: Iterable[Coupled], weight: Mapping[str, float]) -> tuple[Coupled, ...]:
    """Groups that share no layer, so that what they spend adds up: those of the most `weight` (by layer) first taken,
    as along a chain every other one."""
    groups = tuple(groups)
    size = {group: sum(weight.get(path, 0.0) for path in (group.first, *group.between, group.last)) for group in groups}
    used: set[str] = set()
    taken = []
    for group in sorted(groups, key=lambda group: (-size[group], groups.index(group))):
        paths = {group.first, *group.between, group.last}
        if not paths & used:
            used |= paths
            taken.append(group)
    return tuple(sorted(taken, key=groups.index))


def merged(
    units: Iterable[Unit], groups: Iterable[Coupled], network: nn.Module
) -> tuple[tuple[Unit, ...], dict[str, Coupled]]:
    """Units with the layers of every group as one, of kind "channels": the layer that makes them, depthwise ones, and
    the one that mixes them last; and each such unit's group by its name. `vectors` go with the channels as well."""
    units = tuple(units)
    by_path = {unit.matrices[0].tap: unit for unit in units if len(unit.matrices) == 1}
    made: dict[str, Unit] = {}
    of: dict[str, Coupled] = {}
    gone: set[str] = set()
    for group in groups:
        paths = [path for path in (group.first, *group.between, group.last) if path in by_path]
        if group.first not in paths or group.last not in paths:
            continue
        parts = [by_path[path] for path in paths]
        vectors = tuple(
            f"{path}.{name}"
            for path in (group.first, *group.between)
            for name, value in network.get_submodule(path).state_dict().items()
            if value.dim() == 1
        )
        first = parts[0]
        made[first.name] = Unit(first.name, "channels", tuple(p.matrices[0] for p in parts), first.block, vectors)
        of[first.name] = group
        gone |= {part.name for part in parts}
    kept = (made.get(unit.name) or unit for unit in units if unit.name in made or unit.name not in gone)
    return tuple(kept), of


def _follow(node: fx.Node, modules: Mapping[str, Any], first: str) -> Coupled:
    """From a layer's output to the layer that mixes its channels; _End if there is none."""
    linear = isinstance(modules[first], nn.Linear)
    between: list[str] = []
    while True:
        users = list(node.users)
        if len(users) != 1:
            raise _End("its outputs go several ways (a residual stream)" if users else "its outputs are not used")
        (node,) = users
        if node.op == "output":
            raise _End("its outputs are the network's")
        if node.op == "call_module":
            module, path = modules[str(node.target)], str(node.target)
            if isinstance(module, LAYERS) and not deep(module):
                if getattr(module, "groups", 1) > 1:
                    raise _End(f"`{path}` takes its channels in groups")
                return Coupled(first, tuple(between), path, _after(node, modules))
            if deep(module) or isinstance(module, NORMS):
                between.append(path)
            elif not isinstance(module, APART) and not (flattens(module) and not linear):
                raise _End(f"`{path}` ({type(module).__name__}) may mix its channels")
        elif not keeps_channels(node, linear):
            name = getattr(node.target, "__name__", str(node.target))
            raise _End(f"`{name}` joins or reorders its channels")


def _after(node: fx.Node, modules: Mapping[str, Any]) -> str:
    """The normalisation behind a layer that has no bias: one of them must take up a shift of the layer's outputs."""
    if modules[str(node.target)].bias is not None:
        return ""
    if norm := normalised_by(node, modules):
        return norm
    raise _End(f"`{node.target}`, which mixes them, has neither a bias nor a normalisation")


def normalised_by(node: fx.Node, modules: Mapping[str, Any]) -> str:
    """The normalisation that alone takes a node's output, or ""."""
    users = list(node.users)
    if len(users) == 1 and users[0].op == "call_module" and isinstance(modules[str(users[0].target)], NORMS):
        return str(users[0].target)
    return ""


def shifts(graph: fx.Graph, network: nn.Module) -> dict[str, str]:
    """By layer that mixes channels: the normalisation that alone takes its outputs, where there is one."""
    modules = dict(network.named_modules())
    calls = (node for node in graph.nodes if node.op == "call_module" and mixes(modules[str(node.target)]))
    found = {str(node.target): normalised_by(node, modules) for node in calls}
    return {path: norm for path, norm in found.items() if norm}


def mixes(module: Any) -> bool:
    """A layer whose outputs are each made of all its input channels."""
    return isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1


def flattens(module: Any) -> bool:
    """Positions are laid beside each other, channel by channel."""
    return isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1


def keeps_channels(node: fx.Node, linear: bool) -> bool:
    """Whether a function or method treats channels (axis 1; the last behind a linear layer) alike and apart."""
    if (node.op == "call_method" and node.target == "mean") or node.target is torch.mean:
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        dims = dims if isinstance(dims, tuple | list) else (dims,)
        return not linear and None not in dims and all(d not in (0, 1) and d in (2, 3, -1, -2) for d in dims)
    if node.target is operator.getitem:
        at = node.args[1]
        whole = slice(None, None, None)
        return not linear and isinstance(at, tuple) and len(at) > 2 and all(a == whole for a in at[:2])
    if node.target in (torch.flatten, "flatten"):
        return not linear and node.args[1:] == (1,) and not node.kwargs
    if node.op == "call_method":
        return node.target in _METHODS
    return node.op == "call_function" and node.target in _FUNCTIONS


def deep(module: Any) -> bool:
    """A depthwise convolution with one filter for every channel."""
    return isinstance(module, nn.Conv1d | nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels
