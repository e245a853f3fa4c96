"""What of a network is elastic: a supernet's groups and stacks, read from a language model's anatomy or by tracing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from secateur.model.anatomy import Anatomy
from secateur.model.coupled import coupled
from secateur.model.elastic import AXES, Axis, Group, Lane, Stack, Supernet, least, of, sliced
from secateur.model.matrix import place
from secateur.model.sides import with_sides
from secateur.types import ModelError, Unit

#: sizes of every axis, as shares
Asked = Mapping[str, Sequence[float]]


def of_blocks(found: Anatomy, network: nn.Module, asked: Asked) -> Supernet:
    """A language model's: width is the channels of its MLPs, heads its KV heads with the query heads that read them,
    depth its last blocks."""
    kind = str(network.config.model_type)  # type: ignore[union-attr]
    if any(unit.kind == "experts" for unit in found.units):
        raise ModelError(f"a `{kind}` has experts, which are not elastic yet", "train it without --elastic")
    units = with_sides(found, network).units
    by = {"channels": "width", "heads": "heads"}
    lanes: dict[str, list[Unit]] = {}
    for unit in units:
        if unit.side is not None and by.get(unit.side.by) in asked:
            lanes.setdefault(unit.side.part, []).append(unit)
    groups = tuple(_of_part(part, some, by[some[0].side.by]) for part, some in lanes.items() if some[0].side)
    path = found.blocks[0].rpartition(".")[0] if found.blocks else ""
    stacks = (Stack(path, len(found.blocks)),) if "depth" in asked and len(found.blocks) > 1 else ()
    return _checked(asked, groups, stacks, kind)


def of_pictures(network: nn.Module, asked: Asked, example: torch.Tensor) -> Supernet:
    """An image model's: width is the channels that one layer makes and another mixes, nobody else between; depth the
    last blocks of every stage of alike ones that can go. Residual streams keep their channels."""
    groups: list[Group] = []
    for one in coupled(network)[0] if "width" in asked else ():
        first, last = network.get_submodule(one.first), network.get_submodule(one.last)
        n = len(first.weight)  # type: ignore[arg-type]
        own = [Lane(f"{one.first}.{leaf}", 0) for leaf in ("weight", "bias") if getattr(first, leaf) is not None]
        for path in one.between:
            module = network.get_submodule(path)
            held = (*module.named_parameters(), *module.named_buffers())
            own += [Lane(f"{path}.{leaf}", 0) for leaf, value in held if value.dim()]
        per = int(last.weight.shape[1]) // n  # type: ignore[index,operator,union-attr]
        groups.append(Group("width", n, (*own, Lane(f"{one.last}.weight", 1, (per,)))))
    stacks = _stages(network, example) if "depth" in asked else ()
    net = _checked(asked, tuple(groups), stacks, "")
    _try(network, net, example)
    return net


def _of_part(part: str, units: Sequence[Unit], axis: str) -> Group:
    """Both sides of an MLP or an attention; what mixes its channels last."""
    lanes, n = [], 0
    for unit in sorted(units, key=lambda unit: unit.side is not None and unit.side.mixes):
        assert unit.side is not None
        for matrix, per in zip(unit.matrices, unit.side.per, strict=True):
            name, rows = place(matrix).parameter, not unit.side.mixes
            n = (matrix.rows if rows else matrix.cols) // sum(per)
            lanes.append(Lane(name, int(rows == matrix.transposed), per))
            if rows and any(vector == f"{matrix.tensor.removesuffix('weight')}bias" for vector in unit.vectors):
                lanes.append(Lane(f"{place(matrix).module}.bias", 0, per))
    return Group(axis, n, tuple(lanes), part if axis == "heads" else "")


def _stages(network: nn.Module, example: torch.Tensor) -> tuple[Stack, ...]:
    """Containers of blocks of one class of somebody's own, of which the last ones can go: trying shows it."""
    found = []
    for path, module in network.named_modules():
        kinds = {type(child) for child in module.children()}
        own = len(kinds) == 1 and not next(iter(kinds)).__module__.startswith("torch.")
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(module) > 1 and own:
            stack = Stack(path, len(module))
            try:
                _try(network, Supernet((Axis("depth", (1 / stack.n, 1.0)),), (), (stack,)), example)
            except ModelError:
                continue
            found.append(stack)
    return tuple(found)


@torch.no_grad()
def _try(network: nn.Module, net: Supernet, example: torch.Tensor) -> None:
    """ModelError where the smallest slice does not run, or gives something of another shape."""
    shape = network(example).shape
    with sliced(network, net, least(net.axes)):
        try:
            given = network(example).shape
        except Exception as why:  # the network's own code, on other sizes than its author had in mind
            raise ModelError(
                f"its smallest slice does not run: {str(why).splitlines()[0]}", "leave an axis out"
            ) from why
    if given != shape:
        raise ModelError(f"its smallest slice gives {list(given)} instead of {list(shape)}", "leave an axis out")


def _checked(asked: Asked, groups: tuple[Group, ...], stacks: tuple[Stack, ...], kind: str) -> Supernet:
    kinds = {name: {group.n for group in groups if group.axis == name} for name in asked}
    kinds |= {"depth": {stack.n for stack in stacks}} if "depth" in asked else {}
    sizes = {name: _distinct(asked[name], sorted(kinds[name])) for name in asked}
    there = {name for name, shares in sizes.items() if len(shares) > 1}
    if missing := [name for name in asked if name not in there]:
        others = ", ".join(name for name in AXES if name in there) or "nothing"
        why = f"this network has no {missing[0]} that can be sliced (of what was asked: {others})"
        raise ModelError(why, "name other axes with --elastic")
    return Supernet(tuple(Axis(name, sizes[name]) for name in AXES if name in asked), groups, stacks, kind)


def _distinct(shares: Sequence[float], kinds: Sequence[int]) -> tuple[float, ...]:
    """Ascending; of shares that round to the same numbers everywhere the largest."""
    return tuple({tuple(of(n, share) for n in kinds): share for share in sorted(shares) if kinds}.values())
