"""What 8-bit activations cost a network whose weights are as they were: the runtime rounds them whatever a plan says.

All together are measured, and each by itself on a few examples, which says how the whole is shared out. On a residual
network of 20 layers and on the keyword spotter the single costs add up to 1.0 and 1.2 times the whole; they are thirty
to forty times what 8-bit weights cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from secateur.export._qdq import Graph, quantize
from secateur.measure.compare import Comparison, sums

#: examples on which each activation is rounded by itself
_ALONE = 32


def lost(
    plain: Any, graph: Graph, roots: Mapping[str, str], grids: Mapping[str, tuple[float, int]], inputs: np.ndarray
) -> dict[str, tuple[float, float]]:
    """KL in nats per example, and its standard error, of the activations of each layer, by the name of its weight.

    `roots` are the tensors to round in `graph`, each with that whose grid it has; `plain` is the same network.
    """
    touching = _touching(graph, roots)
    if not touching:
        return {}
    before = _logits(plain, inputs)
    every = _compared(_rounded(plain, {name: grids[root] for name, root in roots.items()}), inputs, before)
    single: dict[str, float] = {}
    for root, layers in touching.items():
        mine = {name: grids[root] for name, own in roots.items() if own == root}
        found = _compared(_rounded(plain, mine), inputs[:_ALONE], before[:_ALONE])
        for layer in layers:
            single[layer] = single.get(layer, 0.0) + max(found.kl, 0.0) / len(layers)
    total = sum(single.values())
    shares = {layer: one / total if total > 0 else 1 / len(single) for layer, one in single.items()}
    return {layer: (share * every.kl, share * every.kl_error) for layer, share in shares.items()}


def _touching(graph: Graph, roots: Mapping[str, str]) -> dict[str, list[str]]:
    """The layers that make or read each rounded tensor, by their weights. It stays rounded while one of them is coded,
    which no sum over layers can say: each carries its part, so that all of them together are right."""
    found: dict[str, list[str]] = {root: [] for root in roots.values()}
    for node in graph.layers:
        for name in (graph.behind(node.output[0]), node.input[0]):
            if name in roots and node.input[1] not in found[roots[name]]:
                found[roots[name]].append(node.input[1])
    last = [node.input[1] for node in graph.layers][-1:]
    return {root: layers or last for root, layers in found.items() if layers or last}


def _rounded(plain: Any, grids: Mapping[str, tuple[float, int]]) -> Any:
    graph = Graph(type(plain)())
    graph.model.CopyFrom(plain)
    quantize(graph, grids)
    return graph.model


def _compared(model: Any, inputs: np.ndarray, before: torch.Tensor) -> Comparison:
    out, logits = Comparison(), _logits(model, inputs)
    out.add(sums(logits[:, None], before.argmax(1)[:, None], before[:, None]), 1)
    return out


def _logits(model: Any, inputs: np.ndarray, batch: int = 64) -> torch.Tensor:
    """As the graph says, step by step: the runtime, left alone, rounds weights between rounded tensors as well."""
    from secateur.export._graph import session

    run, name = session(model.SerializeToString(), literal=True), model.graph.input[0].name
    some = [run.run(None, {name: inputs[start : start + batch]})[0] for start in range(0, len(inputs), batch)]
    return torch.from_numpy(np.concatenate(some))
