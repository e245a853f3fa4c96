"""Float graphs made into 8-bit ones as ONNX Runtime wants them: QuantizeLinear, DequantizeLinear around what it fuses.

Weights have 8 bits and a scale a row, activations are uint8 with a scale and a zero point a tensor, biases int32 on the
product of both scales. The runtime fuses `DQ, DQ -> Conv -> Q` and the like into whole-number kernels, if all is so: a
ReLU stands between its layer and the Q, the inputs of a sum are both quantized, and what only moves numbers (slices,
padding, pooling) has the same scale before and behind. What a layer puts out and nobody but a ReLU sees has no scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

#: operators that move numbers and make none
_MOVES = ("Slice", "Pad", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
#: numbers kept of each activation to find its range on
_KEPT = 1 << 17


@dataclass
class Graph:
    """An ONNX model while it is rewritten: who makes a tensor, and who reads it."""

    model: Any
    layers: tuple[Any, ...] = field(default=())

    def made_by(self, name: str) -> Any:
        return next((node for node in self.model.graph.node if name in node.output), None)

    def readers(self, name: str) -> list[Any]:
        return [node for node in self.model.graph.node if name in node.input]

    def straighten(self, weights: Mapping[str, np.ndarray]) -> None:
        """Let products with these weights [outputs, inputs] read an initializer of the weight's name that lies inputs x
        outputs. The exporter turns small weights itself, under a name of its own, and large ones in the graph."""
        arrays: Any = import_module("onnx.numpy_helper")
        held = {one.name: arrays.to_array(one) for one in self.model.graph.initializer if len(one.dims) == 2}
        for node in [one for one in self.model.graph.node if one.op_type == "MatMul"]:
            source, maker = node.input[1], self.made_by(node.input[1])
            if maker is not None and maker.op_type == "Transpose":
                name = maker.input[0] if maker.input[0] in weights else ""
            else:
                found = held.get(source)
                like = (n for n, w in weights.items() if found is not None and np.array_equal(w.T, found))
                name = next(like, "")
            if name:
                node.input[1] = name
                self._exchange(name, weights[name].T)
        self._sweep()

    def _exchange(self, name: str, value: np.ndarray) -> None:
        arrays: Any = import_module("onnx.numpy_helper")
        whole = self.model.graph
        rest = [one for one in whole.initializer if one.name != name]
        del whole.initializer[:]
        whole.initializer.extend([*rest, arrays.from_array(np.ascontiguousarray(value), name)])

    def _sweep(self) -> None:
        """Drop what nobody reads."""
        whole = self.model.graph
        wanted = {one.name for one in whole.output}
        while True:
            read = wanted | {name for node in whole.node for name in node.input}
            kept = [node for node in whole.node if any(name in read for name in node.output)]
            if len(kept) == len(whole.node):
                break
            del whole.node[:]
            whole.node.extend(kept)
        used = [one for one in whole.initializer if one.name in read]
        del whole.initializer[:]
        whole.initializer.extend(used)

    def behind(self, name: str) -> str:
        """The tensor behind a ReLU that alone reads this one, or this one."""
        readers = self.readers(name)
        return readers[0].output[0] if len(readers) == 1 and readers[0].op_type == "Relu" else name


def activations(graph: Graph, cut: Iterable[str]) -> dict[str, str]:
    """Tensors to quantize, each with the one whose range it has (mostly itself); `cut` names the layers' weights.

    The network's outputs stay float32.
    """
    wanted, outputs = set(cut), {one.name for one in graph.model.graph.output}
    graph.layers = tuple(n for n in graph.model.graph.node if len(n.input) > 1 and n.input[1] in wanted)
    found: dict[str, str] = {}
    for node in graph.layers:
        for name in (node.input[0], *([] if node.op_type == "MatMul" else [graph.behind(node.output[0])])):
            found.setdefault(name, name)
    for node in graph.model.graph.node:  # in the order in which they run
        if node.op_type in _MOVES and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
        if node.op_type == "Add" and all(name in found for name in node.input):
            found.setdefault(graph.behind(node.output[0]), graph.behind(node.output[0]))
        if node.op_type in ("GlobalAveragePool", "ReduceMean", "AveragePool") and node.input[0] in found:
            found.setdefault(node.output[0], node.output[0])
    return {name: root for name, root in found.items() if name not in outputs}


def ranges(model: Any, names: Iterable[str], inputs: np.ndarray, batch: int = 64) -> dict[str, tuple[float, int]]:
    """Scale and zero point of each tensor: of the ranges tried, that with the least squared error on what it held."""
    from secateur.export._graph import session

    helper: Any = import_module("onnx.helper")
    probed, wanted = type(model)(), sorted(set(names))
    probed.CopyFrom(model)
    own = {one.name for one in probed.graph.input}
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted if name not in own)
    runtime, seen = session(probed.SerializeToString()), {name: [] for name in wanted}
    given, asked = probed.graph.input[0].name, [name for name in wanted if name not in own]
    for start in range(0, len(inputs), batch):
        some = inputs[start : start + batch]
        made = dict(zip(asked, runtime.run(asked, {given: some}), strict=True)) | {given: some}
        for name in wanted:
            flat = made[name].reshape(-1)
            seen[name].append(flat[:: max(1, flat.size * -(-len(inputs) // batch) // _KEPT)])
            seen[name].append(np.array([flat.min(), flat.max()]))
    return {name: fitted(np.concatenate(parts)) for name, parts in seen.items()}


def fitted(x: np.ndarray) -> tuple[float, int]:
    """Scale and zero point of a uint8 grid for these numbers. Zero is always on it: padding and ReLU need it."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    best, found = np.inf, (1.0, 0)
    for share in np.linspace(1.0, 0.3, 29):
        scale = np.float32(max((high - low) * share / 255, 1e-8))
        zero = int(np.clip(np.round(-low * share / scale), 0, 255))
        snapped = (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale
        error = float(np.square(snapped - x, dtype=np.float64).sum())
        if error < best:
            best, found = error, (float(scale), zero)
    return found


def stand_apart(graph: Graph, rounded: Iterable[str]) -> None:
    """Put a maximum with the least of all numbers, which changes none, behind layers that keep their floats between two
    tensors that are `rounded`: ONNX Runtime would take them for its own and round their weights with one scale."""
    helper: Any = import_module("onnx.helper")
    arrays: Any = import_module("onnx.numpy_helper")
    whole, names, own = graph.model.graph, set(rounded), {node.output[0] for node in graph.layers}
    order: list[Any] = []
    for node in whole.node:
        order.append(node)
        kept = node.op_type in ("Conv", "Gemm") and node.output[0] not in own
        if kept and node.input[0] in names and graph.behind(node.output[0]) in names:
            name = node.output[0]
            node.output[0] = f"{name}.kept"
            order.append(helper.make_node("Max", [f"{name}.kept", "least"], [name]))
    if len(order) > len(whole.node):
        whole.initializer.append(arrays.from_array(np.array(np.finfo(np.float32).min, np.float32), "least"))
        del whole.node[:]
        whole.node.extend(order)


def quantize(graph: Graph, grids: Mapping[str, tuple[float, int]]) -> None:
    """Put a Q and a DQ behind each of these tensors; everybody who read it reads the DQ's output."""
    helper: Any = import_module("onnx.helper")
    arrays: Any = import_module("onnx.numpy_helper")
    whole = graph.model.graph
    order: list[Any] = []
    pairs: dict[str, tuple[Any, Any]] = {}
    for name, (scale, zero) in grids.items():
        for node in graph.readers(name):
            for at, one in enumerate(node.input):
                if one == name:
                    node.input[at] = f"{name}.near"
        numbers = {f"{name}.scale": np.array(scale, np.float32), f"{name}.zero": np.array(zero, np.uint8)}
        whole.initializer.extend(arrays.from_array(value, key) for key, value in numbers.items())
        pairs[name] = (
            helper.make_node("QuantizeLinear", [name, *numbers], [f"{name}.codes"]),
            helper.make_node("DequantizeLinear", [f"{name}.codes", *numbers], [f"{name}.near"]),
        )
    for one in whole.input:
        order += pairs.pop(one.name, ())
    for node in whole.node:
        order.append(node)
        for name in node.output:
            order += pairs.pop(name, ())
    del whole.node[:]
    whole.node.extend(order)
