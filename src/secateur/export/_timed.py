"""Single products as ONNX Runtime does them, and whole uncut networks: what the clock of a plan runs.

A product of a language model is one node on codes. One of an image model lies between two activations of 8 bits, with
the bias and the ReLU that stand behind it, so the runtime merges all of it into one product of whole numbers. Numbers
are random: only shapes and types are timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.parts.edits.int import Int
from secateur.types import Edit, Matrix

Call = Callable[[], Any]


def product(matrix: Matrix, edit: Any, x: Tensor) -> Call:
    """One product of a language model: on codes, or on plain numbers where there is no edit."""
    from secateur.export._blocks import ROUNDED, layout

    drawn = _Drawn()
    if edit is None:
        drawn.hold("w", drawn.random.standard_normal((matrix.cols, matrix.rows), dtype=np.float32))
        return drawn.session(x.numpy(), [drawn.add("MatMul", ["x", "w"], "y")])
    shapes = [shape for _, shape in layout(matrix, edit, "float32").values()]
    for name, shape in zip(("codes", "scale", "zero")[: len(shapes)], shapes, strict=True):
        codes = drawn.random.integers(0, 200, shape, np.uint8)
        drawn.hold(name, drawn.random.random(shape, dtype=np.float32) if name == "scale" else codes)
    told = {"K": matrix.cols, "N": matrix.rows, "bits": edit.bits, "block_size": edit.group}
    drawn.add("MatMulNBits", ["x", *drawn.held], "y", **told, accuracy_level=ROUNDED, domain="com.microsoft")
    return drawn.session(x.numpy(), ["y"])


def layer(kind: Any, matrix: Matrix, edit: Edit | None, given: Sequence[int], copies: int) -> Call:
    """So many copies of one layer of an image model side by side: what one more takes is what it takes in a network.

    A single one would pay alone for the call and for bringing its inputs into the layout in which the runtime
    multiplies. `matrix` has the shape that is left, `kind` the strides; `given` is the shape of the inputs, the batch
    first. A convolution is averaged over places, so that nobody has to bring back what it makes.
    """
    drawn, made = _Drawn(), _Layer(kind, matrix, tuple(given), isinstance(edit, Int))
    x = drawn.rounded("x") if made.whole else "x"
    outs = [made.one(drawn, x, f"{at}") for at in range(copies)]
    return drawn.session(np.random.default_rng(0).standard_normal(tuple(given), dtype=np.float32), outs)


@dataclass
class _Drawn:
    """A graph as it grows: nodes, and the numbers that it holds."""

    nodes: list[Any] = field(default_factory=list)
    held: dict[str, np.ndarray] = field(default_factory=dict)
    random: Any = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, kind: str, inputs: Sequence[str], output: str, **told: Any) -> str:
        self.nodes.append(_helper().make_node(kind, list(inputs), [output], **told))
        return output

    def hold(self, name: str, value: np.ndarray) -> str:
        self.held[name] = value
        return name

    def rounded(self, name: str) -> str:
        """An activation of 8 bits and back."""
        grid = [self.hold("step", np.array(0.1, np.float32)), self.hold("middle", np.array(0, np.uint8))]
        self.add("QuantizeLinear", [name, *grid], f"{name}.codes")
        return self.add("DequantizeLinear", [f"{name}.codes", *grid], f"{name}.near")

    def session(self, x: np.ndarray, outs: Sequence[str]) -> Call:
        """A call of the graph, from `x` to its ends."""
        from secateur.export._graph import OPSET, session

        make, arrays = _helper(), import_module("onnx.numpy_helper")
        float32 = make.np_dtype_to_tensor_dtype(np.dtype(np.float32))
        starts = [make.make_tensor_value_info("x", float32, x.shape)]
        ends = [make.make_tensor_value_info(name, float32, None) for name in outs]
        weights = [arrays.from_array(value, name) for name, value in self.held.items()]
        domains = [make.make_opsetid("", OPSET), make.make_opsetid("com.microsoft", 1)]
        model = make.make_model(make.make_graph(self.nodes, "one", starts, ends, weights), opset_imports=domains)
        model.ir_version = 10
        run, feed = session(model.SerializeToString(), torch.get_num_threads()), {"x": x}
        return lambda: run.run(None, feed)


@dataclass(frozen=True)
class _Layer:
    """A layer of an image model as its file holds it, in floats or in `whole` numbers between rounded activations."""

    kind: Any
    matrix: Matrix
    given: tuple[int, ...]
    whole: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.stored or (self.matrix.rows, self.matrix.cols)

    def one(self, drawn: _Drawn, x: str, name: str) -> str:
        """Draw a copy that reads `x`; its end."""
        if len(self.shape) == 2 and len(self.given) > 2:  # of every place of a picture, the bias a sum of its own
            return drawn.add("MatMul", [x, self._weight(drawn, name, turned=True)], f"{name}.y")
        inputs = [x, self._weight(drawn, name), self._bias(drawn, name)]
        if len(self.shape) == 2:
            out = drawn.add("Gemm", inputs, f"{name}.y", transB=1)
            return drawn.rounded(out) if self.whole else out
        out = drawn.add("Relu", [drawn.add("Conv", inputs, f"{name}.sum", **self._strides())], f"{name}.y")
        out = drawn.add("GlobalAveragePool", [drawn.rounded(out) if self.whole else out], f"{name}.mean")
        return drawn.rounded(out) if self.whole else out

    def _weight(self, drawn: _Drawn, name: str, turned: bool = False) -> str:
        shape, rows = self.shape[::-1] if turned else self.shape, self.matrix.rows
        if not self.whole:
            return drawn.hold(f"{name}.w", drawn.random.standard_normal(shape, dtype=np.float32))
        grid = drawn.hold("scale", np.full(rows, 0.01, np.float32)), drawn.hold("zero", np.full(rows, 128, np.uint8))
        codes = drawn.hold(f"{name}.codes", drawn.random.integers(0, 255, shape, np.uint8))
        return drawn.add("DequantizeLinear", [codes, *grid], f"{name}.w", axis=int(turned))

    def _bias(self, drawn: _Drawn, name: str) -> str:
        rows = self.matrix.rows
        if not self.whole:
            return drawn.hold("b", np.zeros(rows, np.float32))
        parts = drawn.hold("bias", np.zeros(rows, np.int32)), drawn.hold("wide", np.full(rows, 0.001, np.float32))
        return drawn.add("DequantizeLinear", parts, f"{name}.b", axis=0)

    def _strides(self) -> dict[str, Any]:
        sides = len(self.given) - 2
        strides, dilations = (
            [one] * sides if isinstance(one, int) else list(one) for one in (self.kind.stride, self.kind.dilation)
        )
        told = {"strides": strides, "dilations": dilations, "group": self.given[1] // self.matrix.stored[1]}
        if isinstance(self.kind.padding, str):
            return told | {"auto_pad": "SAME_UPPER" if self.kind.padding == "same" else "VALID"}
        return told | {"pads": [*self.kind.padding, *self.kind.padding]}


def network(program: torch.export.ExportedProgram, names: str, example: Tensor) -> Call:
    """One pass of an uncut network in plain numbers, from its trace; `names` is what its input is called."""
    from secateur.export._graph import OPSET, quiet, session

    with quiet():
        how: Mapping[str, Any] = {"dynamo": True, "verbose": False, "opset_version": OPSET, "input_names": [names]}
        made: Any = torch.onnx.export(program, **how)
    run, feed = session(made.model_proto.SerializeToString(), torch.get_num_threads()), {names: example.numpy()}
    return lambda: run.run(None, feed)


def _helper() -> Any:
    """What makes nodes, of a package that is there only where files of ONNX are written."""
    return import_module("onnx.helper")
