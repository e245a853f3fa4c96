"""Seconds: what the products of a plan take on this machine, shape by shape, as the file's runtime does them.

Every different product is timed once, alone and as often as it takes; a plan's seconds are the sum over its units and
what the rest of the network takes, which is the whole uncut network less its products. The time is of one window of
text as long as the calibration's, or of one picture, on as many threads as torch has. Of several tries the fastest
counts: the others had company.

Formats differ in what runs: `torch-export` decodes codes and multiplies, low ranks twice; `onnx` (language models) runs
one node on codes; the others load plain numbers, and save time by smaller shapes alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.export._dress import Decoded
from secateur.model.anatomy import load_block, skeleton
from secateur.model.watch import glance
from secateur.model.whole import Whole
from secateur.parts import reading
from secateur.parts.edits import text
from secateur.parts.edits.keep import Keep
from secateur.types import BudgetError, Edit, Matrix, Unit

#: formats whose runtime has no clock here: to time torch in its place would be no answer
UNTIMED = ("gguf", "onnx-qdq")
#: tries of one product: at least so many, and for so long
TRIES, LONG = 5, 0.05


@torch.no_grad()
def fastest(call: Callable[[], Any], tries: int = TRIES, long: float = LONG) -> float:
    """Seconds of the fastest of at least so many tries that take so long together; one goes before them, to warm up."""
    call()
    best, begun, done = math.inf, time.perf_counter(), 0
    while done < tries or time.perf_counter() - begun < long:
        start = time.perf_counter()
        call()
        best, done = min(best, time.perf_counter() - start), done + 1
    return best


@dataclass
class Latency:
    """The clock of one case: `seconds` of a unit with an edit, and `rest` of everything else. Both are measured when
    they are first asked for."""

    case: Any
    known: dict[Any, float] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of image models' layers

    def __post_init__(self) -> None:
        case = self.case
        if (case.format.name == "onnx" and isinstance(case.stream, Whole)) or case.format.name in UNTIMED:
            kind = "image" if isinstance(case.stream, Whole) else "language"
            hint = "cap flops or bytes, or use --format torch-export"
            raise BudgetError(f"{case.format.name} files of {kind} models are not timed yet", hint)
        if isinstance(case.stream, Whole):
            self.inputs = _inputs(case.stream.network, self._example())

    def seconds(self, unit: Unit, edit: Edit) -> float:
        """What all products of a unit take."""
        left, inner = self.case.left(unit, edit)
        pairs = zip(unit.matrices, left.matrices, strict=False)  # nothing is left of what is gone
        return math.fsum(self._product(unit, whole, one, inner) for whole, one in pairs)

    @property
    def rest(self) -> float:
        """What the network takes beside the units' products; never below zero."""
        if "rest" not in self.known:
            products = math.fsum(self._plain(unit) for unit in self.case.units)
            self.known["rest"] = max(0.0, fastest(self._whole(), TRIES, 20 * LONG) - products)
        return self.known["rest"]

    def _plain(self, unit: Unit) -> float:
        return math.fsum(self._product(unit, m, m, Keep(), plain=True) for m in unit.matrices)

    def _product(self, unit: Unit, whole: Matrix, one: Matrix, edit: Any, plain: bool = False) -> float:
        """One matrix with its share of the inputs, `plain` as numbers whatever the format."""
        places = self._places(unit, whole)
        if not places or not one.size:
            return 0.0
        edit = None if plain or isinstance(edit, Keep) or self.how == "plain" else edit
        shape = (one.rows, one.cols, one.stored, places, self.inputs.get(whole.tap))
        key = (*shape, edit and text(edit))
        if key not in self.known:
            self.known[key] = fastest(self._call(whole, one, edit, places))
        return self.known[key]

    def _places(self, unit: Unit, matrix: Matrix) -> int:
        """How many inputs a matrix multiplies."""
        each = self.case.stream.per_weight(unit, matrix) / 2
        return round(each * (1 if isinstance(self.case.stream, Whole) else self.case.calib.shape[1]))

    @property
    def how(self) -> str:
        """What runs the file: a graph of torch, ONNX Runtime, or plain products of torch."""
        return self.case.format.name if self.case.format.name in ("torch-export", "onnx") else "plain"

    def _call(self, whole: Matrix, one: Matrix, edit: Any, places: int) -> Callable[[], Any]:
        x = torch.randn(places, one.cols)
        if self.how == "onnx":
            return _runtime(one, edit, x)
        maker = None if edit is None else _random(one, edit)
        if whole.tap in self.inputs and one.stored:
            return self._convolution(whole, one, maker)
        if maker is not None:
            return (lambda: maker.through(x)) if maker.thin else lambda: functional.linear(x, maker())
        w = torch.randn(one.rows, one.cols)
        return lambda: functional.linear(x, w)

    def _convolution(self, whole: Matrix, one: Matrix, maker: Decoded | None) -> Callable[[], Any]:
        """With the normalisation and the activation behind it, whose time goes with its channels."""
        layer: Any = self.case.stream.network.get_submodule(whole.tap)
        kernel = torch.randn(one.stored)
        apart = layer.groups == layer.in_channels and layer.groups > 1
        groups = one.rows // (layer.out_channels // layer.in_channels) if apart else layer.groups
        x = torch.randn(1, one.stored[1] * groups, *self.inputs[whole.tap][2:])
        mean, spread = torch.zeros(one.rows), torch.ones(one.rows)

        def run() -> Tensor:
            w = kernel if maker is None else maker().reshape(one.stored)
            y = functional.conv2d(x, w, None, layer.stride, layer.padding, layer.dilation, groups)
            return functional.batch_norm(y, mean, spread).relu_()

        return run

    def _example(self) -> Tensor:
        return torch.zeros(1, *self.case.stream.prepare.shape)

    def _whole(self) -> Callable[[], Any]:
        """One pass of the uncut network, in memory."""
        stream = self.case.stream
        if isinstance(stream, Whole):
            network, x = stream.network, self._example()
            return lambda: network(x)
        empty = skeleton(self.case.checkpoint)
        network: Any = load_block(self.case.checkpoint, stream.anatomy, "", empty)
        window = self.case.calib[:1]
        if self.how == "onnx":
            return _whole_in_runtime(network, window)
        return lambda: network(input_ids=window, use_cache=False)


def held_against(uncut: Any, edits: Mapping[str, Edit], promised: float, folder: Path) -> dict[str, float]:
    """Seconds `promised` of a plan of the `uncut` case, `again` by a clock of now, and `measured` of the finished file.

    Between plan and file lie minutes in which a shared machine may have become another one: a clock of now says how
    much of what is missed is the machine's, and how much the sum's.
    """
    clock = Latency(uncut)
    again = clock.rest + math.fsum(clock.seconds(unit, edits[unit.name]) for unit in uncut.units)
    return {"promised": promised, "again": again, "measured": measured(uncut, folder)}


def measured(case: Any, folder: Path) -> float:
    """Seconds of the finished file, whole, in what runs it."""
    inputs: Tensor = case.stream.inputs(case.calib[:1])
    how = case.format.name
    if how == "torch-export":
        from secateur.export.torch_export import FILE, load

        program = load(folder / FILE)
        return fastest(lambda: program(inputs), TRIES, 20 * LONG)
    if how == "onnx":
        from secateur.export._graph import FILE, session

        run, feed = session(folder / FILE, torch.get_num_threads()), {"tokens": inputs.numpy()}
        return fastest(lambda: run.run(None, feed), TRIES, 20 * LONG)
    if isinstance(case.stream, Whole):
        from secateur.export._vision import reopened

        whole: Any = reopened(folder)
        return fastest(lambda: whole(inputs.float()), TRIES, 20 * LONG)
    network: Any = reading.network(folder)
    return fastest(lambda: network(input_ids=inputs, use_cache=False), TRIES, 20 * LONG)


def timed(case: Any) -> Any:
    """The case with a clock: its menus price seconds."""
    if case.device.type != "cpu":
        raise BudgetError(f"seconds are measured on the processor, not on {case.device}", "say --device cpu")
    return replace(case, clock=Latency(case))


def _inputs(network: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of what every convolution takes, by path."""
    found: dict[str, tuple[int, ...]] = {}
    glance(network, example, (nn.Conv2d,), lambda path, _, x, out: found.update({path: tuple(x.shape)}))
    return found


def _random(matrix: Matrix, edit: Any) -> Decoded:
    """A matrix as a graph of torch-export holds it, its bytes at random."""
    from secateur.export.packed import Packed
    from secateur.model.checkpoint import DTYPES

    held = Packed().layout(Unit(matrix.tensor, "linear", (matrix,)), edit, "float16")

    def read(name: str) -> Tensor:
        kind, shape = held[name]
        if kind == "U8":
            return torch.randint(0, 200, shape, dtype=torch.uint8)
        return torch.rand(shape).to(DTYPES[kind])

    return Decoded(matrix, edit, read)


def _runtime(matrix: Matrix, edit: Any, x: Tensor) -> Callable[[], Any]:
    """The node of ONNX Runtime that multiplies by a matrix: on codes, or on plain numbers where there is no edit."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from secateur.export._blocks import ROUNDED, layout
    from secateur.export._graph import OPSET, session

    random = np.random.default_rng(0)
    if edit is None:
        held = {"w": random.standard_normal((matrix.cols, matrix.rows), dtype=np.float32)}
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    else:
        shapes = [shape for _, shape in layout(matrix, edit, "float32").values()]
        names = ("codes", "scale", "zero")[: len(shapes)]
        held = {
            name: random.random(shape, dtype=np.float32)
            if name == "scale"
            else random.integers(0, 200, shape, np.uint8)
            for name, shape in zip(names, shapes, strict=True)
        }
        told = {"K": matrix.cols, "N": matrix.rows, "bits": edit.bits, "block_size": edit.group}
        told |= {"accuracy_level": ROUNDED, "domain": "com.microsoft"}
        node = helper.make_node("MatMulNBits", ["x", *names], ["y"], **told)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [len(x), matrix.cols]), ("y", [len(x), matrix.rows]))
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in held.items()]
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "one", ends[:1], ends[1:], weights), opset_imports=domains)
    model.ir_version = 10
    run, feed = session(model.SerializeToString(), torch.get_num_threads()), {"x": x.numpy()}
    return lambda: run.run(None, feed)


def _whole_in_runtime(network: nn.Module, window: Tensor) -> Callable[[], Any]:
    """One pass of the uncut network in ONNX Runtime, in plain numbers."""
    from secateur.export._graph import OPSET, quiet, session
    from secateur.export.torch_export import traced

    with quiet():
        program, how = traced(network, "the uncut network"), {"opset_version": OPSET, "input_names": ["tokens"]}
        made: Any = torch.onnx.export(program, dynamo=True, verbose=False, **how)
    run = session(made.model_proto.SerializeToString(), torch.get_num_threads())
    feed = {"tokens": window.numpy()}
    return lambda: run.run(None, feed)
