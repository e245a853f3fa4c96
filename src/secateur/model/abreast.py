"""Two networks of one shape through the same examples, abreast: one as it was, one that is being changed on the way.

The traced graph is walked once, a step at a time, all examples together, so that a layer can be changed by what it sees
in the one and what it gave in the other before anything behind it runs. One walk costs two passes, however many layers
change; what has not changed yet is run once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.fx as fx
from torch import Tensor, nn
from torch.fx.node import map_arg

from secateur.model.parked import States

#: `change(path, module, xs, ys, differs)`, before a module of the network that is changed runs on `xs`, where the other
#: one has given `ys`; `differs` says whether `xs` are other than they were. What it returns are the modules it changed
Change = Callable[[str, Any, Sequence[Tensor], Sequence[Tensor], bool], Sequence[str]]
#: examples that run together, and bytes that the values of one step may take in both networks
BATCH, ROOM = 128, 2**29
#: examples at the least: fewer say nothing of a covariance
FEWEST = 32


@torch.no_grad()
def abreast(
    graph: fx.Graph, before: nn.Module, network: nn.Module, inputs: States, change: Change, changed: Iterable[str] = ()
) -> None:
    """Walk both networks, of which `graph` is traced, through the inputs; `change` changes `network` in place, in which
    the modules `changed` are others already."""
    device = next(network.parameters()).device
    n = enough(before, inputs)
    batches = [inputs[at : min(at + BATCH, n)].to(device) for at in range(0, n, BATCH)]
    values: dict[fx.Node, tuple[list[Any], list[Any]]] = {}
    last = {used: node for node in graph.nodes for used in node.all_input_nodes}
    touched = set(changed)
    for node in graph.nodes:
        if node.op == "output":
            break
        if node.op == "placeholder":
            values[node] = batches, batches
        elif node.op == "get_attr":
            was, now = ([_attribute(root, str(node.target))] * len(batches) for root in (before, network))
            values[node] = was, was if torch.equal(was[0], now[0]) else now
        else:
            values[node] = _step(node, values, before, network, change, touched)
        for used in node.all_input_nodes:
            if last[used] is node:
                del values[used]


def enough(network: nn.Module, inputs: States) -> int:
    """How many of the inputs can be held at every place of the network at once."""
    largest = [1]
    handles = [
        module.register_forward_hook(lambda m, args, out: largest.append(out.numel() if torch.is_tensor(out) else 0))
        for module in network.modules()
    ]
    try:
        network(inputs[:1].to(next(network.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return min(len(inputs), max(FEWEST, ROOM // (8 * max(largest))))


def _step(
    node: fx.Node,
    values: dict[fx.Node, tuple[list[Any], list[Any]]],
    before: nn.Module,
    network: nn.Module,
    change: Change,
    touched: set[str],
) -> tuple[list[Any], list[Any]]:
    """What a node gives in both networks; one list twice where nothing differs."""
    differs = any(values[used][0] is not values[used][1] for used in node.all_input_nodes)
    n = len(next(iter(values.values()))[0])
    was = [_run(node, before, lambda used, i=i: values[used][0][i]) for i in range(n)]
    if node.op == "call_module":
        path = str(node.target)
        xs = values[node.args[0]][1]  # type: ignore[index]
        touched.update(change(path, network.get_submodule(path), xs, was, differs))
        differs = differs or path in touched
    if not differs:
        return was, was
    return was, [_run(node, network, lambda used, i=i: values[used][1][i]) for i in range(n)]


def _run(node: fx.Node, root: nn.Module, value: Callable[[fx.Node], Any]) -> Any:
    args = map_arg(node.args, value)
    kwargs = map_arg(node.kwargs, value)
    if node.op == "call_module":
        return root.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _attribute(root: nn.Module, name: str) -> Any:
    path, _, last = name.rpartition(".")
    return getattr(root.get_submodule(path), last)
