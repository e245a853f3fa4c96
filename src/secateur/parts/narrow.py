"""Fewer channels in a network that runs: which go, how what mixes them makes up for it, and how the tensors shrink.

Channels go in the order of `maths/channels`. Then, from the input on, every layer that mixes channels is fitted anew:
to the outputs that it had in the uncut network, from the inputs that it has in the cut one, so that it makes up for
what was lost before it as well. On `resnet20_jpeg` at 60% of the FLOPs, the same share everywhere, that is 80.4% right
against 77.9% when every layer is fitted to its own uncut inputs; with shares chosen by damage 83.6% against 82.9% when
only layers that lose inputs are fitted, and 77.6% against 73.6% at 40%. Statistics of a group's normalisations are
renewed on the way (of all: 0.1 to 0.5 points worse); no weight is trained.

Until the tensors are taken out, the network keeps its shapes: columns of channels that are gone are zeros.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
import torch.fx as fx
from torch import Tensor, nn

from secateur.maths.channels import Mixing, Moments, Removal, greedy, jointly
from secateur.model.abreast import abreast
from secateur.model.coupled import NORMS, Coupled, mixes, shifts
from secateur.model.matrix import view
from secateur.model.parked import States
from secateur.model.trunk import Trunk
from secateur.model.watch import patches
from secateur.parts.edits.channels import Channels
from secateur.parts.left import columns
from secateur.types import Unit

#: examples that run together: enough for the statistics of a normalisation
_BATCH = 128
#: places for every column of a matrix that is fitted anew: more cost time and tell nothing (neighbours are alike)
PLACES = 128


# which go


@torch.no_grad()
def moments(network: nn.Module, units: Sequence[Unit], inputs: States) -> dict[str, Moments]:
    """Of what each unit's last layer takes and makes, in one pass; by unit."""
    found = met(network, [unit.matrices[-1].tap for unit in units], inputs)
    return {unit.name: found[unit.matrices[-1].tap] for unit in units}


@torch.no_grad()
def met(network: nn.Module, paths: Sequence[str], inputs: States) -> dict[str, Moments]:
    """Of what the layers at these paths take and make, in one pass."""
    found, handles, batches = {}, [], {path: count() for path in paths}
    for path in paths:
        module: Any = network.get_submodule(path)
        found[path] = Moments.empty(len(module.weight), module.weight[0].numel(), _device(network))

        def see(module: nn.Module, args: Any, out: Tensor, path: str = path) -> None:
            found[path].update(*_places(module, args[0], out, len(inputs), next(batches[path])))

        handles.append(module.register_forward_hook(see))
    try:
        for start in range(0, len(inputs), _BATCH):
            network(inputs[start : start + _BATCH].to(_device(network)))
    finally:
        for handle in handles:
            handle.remove()
    return found


def removal(network: nn.Module, unit: Unit, seen: Moments, g: Tensor) -> Removal:
    """The order in which a unit's channels go. `g` is how much the loss minds errors of the last layer's outputs."""
    last = unit.matrices[-1]
    w = view(network, last)
    return greedy(w.cpu(), seen.covariance().cpu(), g.cpu(), last.cols // unit.matrices[0].rows)


def thinning(network: nn.Module, trunk: Trunk, seen: Mapping[str, Moments], g: Mapping[str, Tensor]) -> Removal:
    """The order in which a trunk's channels go, by what all that mix them lose; `seen` and `g` of those, by path."""
    mixers = []
    for path in trunk.takers:
        w: Tensor = network.get_submodule(path).weight.detach().flatten(1).cpu()  # type: ignore[operator,union-attr]
        mixers.append(Mixing(w, seen[path].covariance().cpu(), g[path].cpu(), w.shape[1] // trunk.width))
    return jointly(mixers)


# the network without them


@dataclass(frozen=True)
class Fewer:
    """One group of a network and the channels of it that stay."""

    unit: Unit
    group: Coupled
    kept: Tensor

    @property
    def columns(self) -> Tensor:
        return columns(self.kept, self.unit.matrices[-1].cols // self.unit.matrices[0].rows)


@dataclass(frozen=True)
class Thinner:
    """A trunk of a network and the channels of it that stay, in any order."""

    trunk: Trunk
    kept: Tensor

    @property
    def gone(self) -> Tensor:
        every = torch.ones(self.trunk.width, dtype=torch.bool)
        every[self.kept] = False
        return every.nonzero()[:, 0]

    def columns(self, network: nn.Module, path: str) -> Tensor:
        """Those that stay of a layer that mixes the trunk's channels."""
        cols = network.get_submodule(path).weight[0].numel()  # type: ignore[index,operator,union-attr]
        return columns(self.kept.sort().values, cols // self.trunk.width)


@torch.no_grad()
def alone(network: nn.Module, fewer: Fewer, seen: Moments) -> None:
    """Take the channels of one group away from a network that is otherwise as it was, in place; no pass is needed."""
    group, columns = fewer.group, fewer.columns
    _fit(network, group.last, group.after, columns, *seen.refit(columns.to(seen.xx.device)))


@torch.no_grad()
def together(
    network: nn.Module,
    groups: Sequence[Fewer],
    inputs: States,
    keep: Collection[str] = (),
    thinner: Sequence[Thinner] = (),
) -> None:
    """Take the channels of all groups and trunks away, in place, from the input on; `inputs` are to be met as by the
    network that it was. Layers in `keep` that lose no channels stay as they are."""
    mixers = {fewer.group.last: fewer.columns for fewer in groups}
    mixers |= {path: thin.columns(network, path) for thin in thinner for path in thin.trunk.takers}
    empty = {path: thin.gone for thin in thinner for path in thin.trunk.along if len(thin.gone)}
    renewed = {path for fewer in groups for path in fewer.group.between}

    def change(path: str, module: Any, xs: Sequence[Tensor], ys: Sequence[Tensor], differs: bool) -> Sequence[str]:
        if isinstance(module, NORMS):
            return _renew(module, xs) or (path,) if path in renewed else ()
        after = behind.get(path, "")
        if not mixes(module) or (module.bias is None and not after):
            return ()
        columns = mixers.get(path, torch.arange(module.weight[0].numel()))
        fewer = len(columns) < module.weight[0].numel()
        if not fewer and (not differs or path in keep):
            return ()
        seen = Moments.empty(len(module.weight), module.weight[0].numel(), module.weight.device)
        for at, (x, y) in enumerate(zip(xs, ys, strict=True)):
            seen.update(*_places(module, x, y, sum(map(len, xs)), at))
        _fit(network, path, after, columns, *seen.refit(columns.to(seen.xx.device)))
        _empty(module, empty.get(path))
        return (path, after)

    before = copy.deepcopy(network)
    graph = fx.symbolic_trace(before).graph
    behind = shifts(graph, network)
    for path, gone in empty.items():
        _empty(network.get_submodule(path), gone)
    abreast(graph, before, network, inputs, change, empty)


def _empty(module: Any, gone: Tensor | None) -> None:
    """Rows of a layer, or numbers of a normalisation, that give zeros from now on."""
    if gone is not None:
        for value in (module.weight, module.bias):
            if value is not None:
                value[gone.to(value.device)] = 0.0


def _fit(network: nn.Module, path: str, after: str, columns: Tensor, w: Tensor, shift: Tensor) -> None:
    """Write a refitted matrix; the shift goes into the bias, or into the mean of the normalisation behind."""
    layer: Any = network.get_submodule(path)
    full = torch.zeros_like(layer.weight).flatten(1)
    full[:, columns.to(full.device)] = w.to(full.device)
    layer.weight.copy_(full.view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.copy_(shift)
    else:
        # the refitted outputs plus `shift` have the mean that the uncut ones had; a mean that is lower by it says so
        network.get_submodule(after).running_mean.sub_(shift)  # type: ignore[operator,union-attr]


def _renew(norm: Any, xs: Sequence[Tensor]) -> None:
    """Mean and variance of all that a normalisation sees."""
    flat = [x.double().flatten(2) if x.dim() > 2 else x.double()[..., None] for x in xs]
    n = sum(x.shape[0] * x.shape[2] for x in flat)
    mean = torch.stack([x.sum((0, 2)) for x in flat]).sum(0) / n
    square = torch.stack([x.square().sum((0, 2)) for x in flat]).sum(0) / n
    norm.running_mean.copy_(mean)
    norm.running_var.copy_((square - mean.square()).clamp_min(0.0))


def _places(module: Any, x: Tensor, y: Tensor, examples: int, nth: int = 0) -> tuple[Tensor, Tensor]:
    """A layer's inputs [places, cols] and outputs [places, rows], its own bias left out: of all `examples` so many
    places that every column has `PLACES`, a grid that lies elsewhere in every `nth` batch."""
    if isinstance(module, nn.Linear):
        x, y = x.flatten(1, -2) if x.dim() > 2 else x[:, None], y.flatten(1, -2) if y.dim() > 2 else y[:, None]
        every = _every(examples * x.shape[1], x.shape[2], x.shape[1])
        return x[:, nth % every :: every].flatten(0, 1), y[:, nth % every :: every].flatten(0, 1)
    high, wide = (1, *y.shape[2:])[-2:]
    all_, cols = examples * high * wide, module.weight[0].numel() * module.groups
    down = min(high, math.isqrt(_every(all_, cols, high * wide)))
    across = _every(all_ // down, cols, wide)
    start = nth % down, nth % across
    y = y.unflatten(2, (1, -1)) if y.dim() == 3 else y
    y = y[:, :, start[0] :: down, start[1] :: across]
    return patches(module, x, (down, across), start).flatten(0, 1), y.flatten(2).mT.flatten(0, 1)


def _every(places: int, cols: int, most: int) -> int:
    """The step at which so many places are still enough for so many columns, at most `most`."""
    return max(1, min(places // (PLACES * cols), most))


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def kept_of(removals: Mapping[str, Removal], unit: Unit, edit: Channels) -> Tensor:
    """The channels of a unit that an edit leaves."""
    return removals[unit.name].kept(edit.left(unit.matrices[0].rows))
