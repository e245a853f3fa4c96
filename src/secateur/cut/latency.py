"""Seconds: what the products of a plan take on this machine, shape by shape, as the file's runtime does them.

Every different product is timed alone, a few times when a survey begins and again when it ends: of tries in a row the
fastest counts, the others had company, and of such turns the middle one, so that a plan is not made of lucky moments. A
plan's seconds are the sum over its units and what the rest of the network takes, which is the whole uncut network less
its products. The time is of one window of text as long as the calibration's, or of one picture, on as many threads as
torch has.

Formats differ in what runs: `torch-export` decodes codes and multiplies, low ranks twice; `onnx` runs one node on codes
and, of image models, layers of whole numbers; the others load plain numbers, and save time by smaller shapes alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.cut.case import Case, Tell, silent
from secateur.export import _timed
from secateur.export._dress import Decoded
from secateur.export.torch_export import program_of, traced
from secateur.model.anatomy import load_block, skeleton
from secateur.model.watch import glance
from secateur.model.whole import Whole
from secateur.parts import reading
from secateur.parts.edits import text
from secateur.parts.edits.keep import Keep
from secateur.types import BudgetError, Edit, Matrix, Unit

#: formats whose runtime has no clock here: to time torch in its place would be no answer
UNTIMED = ("gguf", "onnx-qdq")
#: tries of one product at a time: at least so many, and for so long; of a whole network that many times as long, and
#: longer where it is timed in turn with a finished file
TRIES, LONG, LONGER, LONGEST = 5, 0.01, 50, 600
#: how often what is new is timed at once, each time with new numbers
TURNS = 3
#: layers side by side, few and many, that tell what one more takes
COPIES = 1, 5
WHOLE = "whole"
#: the note of a menu that has the seconds of every row in the uncut network
PLAIN = "plain_seconds"

Call = Callable[[], Any]


@torch.no_grad()
def fastest(call: Call, tries: int = TRIES, long: float = LONG) -> float:
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
    timers: dict[Any, Callable[[], float]] = field(default_factory=dict)
    times: dict[Any, list[float]] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of image models' layers, by path

    def __post_init__(self) -> None:
        case = self.case
        if case.format.name in UNTIMED:
            hint = "cap flops or bytes, or use --format torch-export or onnx"
            raise BudgetError(f"{case.format.name} files of language models are not timed yet", hint)
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
        if WHOLE not in self.known:
            self._time(WHOLE, lambda: fastest(self.uncut, TRIES, LONGER * LONG))
        return max(0.0, self.known[WHOLE] - math.fsum(self.plain(unit) for unit in self.case.units))

    def study(self, pairs: Sequence[tuple[Unit, Edit]], tell: Tell = silent) -> None:
        """Time what these units with these edits take, and then all that was ever timed once more.

        A shared machine is slow for a second at a time, and some places in memory are slower than others: what is timed
        now and then, each time with new numbers, is less by chance than what is timed for as long at once. The middle
        of the turns and not the fastest: what is planned with the least of many is always a little too low.
        """
        steps = len(pairs) + len(self.timers)
        for at, (unit, edit) in enumerate(pairs):
            tell("timing", at, steps)
            self.seconds(unit, edit)
        _, steps = self.rest, len(pairs) + len(self.timers)
        for at, (key, timer) in enumerate(self.timers.items(), len(pairs)):
            tell("timing", at, steps)
            self._add(key, timer())
        tell("timing", steps, steps)

    def _time(self, key: Any, timer: Callable[[], float]) -> None:
        self.timers[key], self.times[key] = timer, []
        for _ in range(TURNS):
            self._add(key, timer())

    def _add(self, key: Any, seconds: float) -> None:
        self.times[key].append(seconds)
        self.known[key] = median(self.times[key])

    def plain(self, unit: Unit) -> float:
        """What the products of a unit take in the uncut network."""
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
            layer = self.case.stream.network.get_submodule(whole.tap) if whole.tap in self.inputs else None
            if layer is not None and self.how == "onnx":
                self._time(key, lambda: self._one_more(layer, self._given(layer, whole, one), one, edit))
            else:
                self._time(key, lambda: fastest(self._call(layer, whole, one, edit, places)))
        return self.known[key]

    def _one_more(self, layer: Any, given: tuple[int, ...], one: Matrix, edit: Any) -> float:
        """What one more layer takes beside others of its kind, in ONNX Runtime."""
        few, many = (_timed.layer(layer, one, edit, given, copies) for copies in COPIES)
        return max(0.0, fastest(many) - fastest(few)) / (COPIES[1] - COPIES[0])

    def _places(self, unit: Unit, matrix: Matrix) -> int:
        """How many inputs a matrix multiplies."""
        each = self.case.stream.per_weight(unit, matrix) / 2
        return round(each * (1 if isinstance(self.case.stream, Whole) else self.case.calib.shape[1]))

    @property
    def how(self) -> str:
        """What runs the file: a graph of torch, ONNX Runtime, or plain products of torch."""
        return self.case.format.name if self.case.format.name in ("torch-export", "onnx") else "plain"

    def _call(self, layer: Any, whole: Matrix, one: Matrix, edit: Any, places: int) -> Call:
        x = torch.randn(places, one.cols)
        if self.how == "onnx":
            return _timed.product(one, edit, x)
        maker = None if edit is None else _random(one, edit)
        if isinstance(layer, nn.Conv2d):
            return self._convolution(layer, self._given(layer, whole, one), one, maker)
        if maker is not None:
            return (lambda: maker.through(x)) if maker.thin else lambda: functional.linear(x, maker())
        w = torch.randn(one.rows, one.cols)
        return lambda: functional.linear(x, w)

    def _given(self, layer: Any, whole: Matrix, one: Matrix) -> tuple[int, ...]:
        """The shape of what a layer of an image model takes, once it has the shape of `one`."""
        was = self.inputs[whole.tap]
        if isinstance(layer, nn.Linear):
            return (*was[:-1], one.cols)
        apart = layer.groups == layer.in_channels and layer.groups > 1
        groups = one.rows // (layer.out_channels // layer.in_channels) if apart else layer.groups
        return (was[0], one.stored[1] * groups, *was[2:])

    def _convolution(self, layer: Any, given: tuple[int, ...], one: Matrix, maker: Decoded | None) -> Call:
        """With the normalisation and the activation behind it, whose time goes with its channels."""
        kernel, x = torch.randn(one.stored), torch.randn(given)
        mean, spread = torch.zeros(one.rows), torch.ones(one.rows)
        how = layer.stride, layer.padding, layer.dilation, given[1] // one.stored[1]

        def run() -> Tensor:
            w = kernel if maker is None else maker().reshape(one.stored)
            return functional.batch_norm(functional.conv2d(x, w, None, *how), mean, spread).relu_()

        return run

    def _example(self) -> Tensor:
        return torch.zeros(1, *self.case.stream.prepare.shape)

    @cached_property
    def uncut(self) -> Call:
        """One pass of the uncut network, in memory; made once: tracing takes longer than timing."""
        stream = self.case.stream
        if isinstance(stream, Whole):
            network, x = stream.network, self._example()
            if self.how == "onnx":
                return _timed.network(program_of(network, x, (), "the uncut network"), "images", x)
            return lambda: network(x)
        empty = skeleton(self.case.checkpoint)
        network: Any = load_block(self.case.checkpoint, stream.anatomy, "", empty)
        window = self.case.calib[:1]
        if self.how == "onnx":
            return _timed.network(traced(network, "the uncut network"), "tokens", window)
        return lambda: network(input_ids=window, use_cache=False)


def held_against(uncut: Case, promised: float, then: float | None, folder: Path) -> dict[str, float]:
    """Seconds `promised` and `measured` of the finished file, those of the `uncut` network in turn with it, and the
    `pace`: how many times as long that takes as `then`, when the plan was made.

    Between plan and file lie minutes in which a shared machine may have become another one: by the pace, what is missed
    is the machine's.
    """
    whole, found = in_turn(Latency(uncut).uncut, finished(uncut, folder), TRIES, LONGEST * LONG)
    return {"promised": promised, "measured": found, "uncut": whole, **({"pace": whole / then} if then else {})}


def beside(case: Case, folder: Path) -> tuple[float, float]:
    """Seconds of the uncut network and of a finished file, in turn; the case has a clock."""
    return in_turn(case.clock.uncut, finished(case, folder), TRIES, LONGEST * LONG)


@torch.no_grad()
def in_turn(one: Call, other: Call, tries: int, long: float) -> tuple[float, float]:
    """Seconds of the fastest of at least so many tries of each, in turn, that take so long together."""
    one()
    other()
    best, begun, done = [math.inf, math.inf], time.perf_counter(), 0
    while done < tries or time.perf_counter() - begun < long:
        for at, call in enumerate((one, other)):
            start = time.perf_counter()
            call()
            best[at] = min(best[at], time.perf_counter() - start)
        done += 1
    return best[0], best[1]


def finished(case: Case, folder: Path) -> Call:
    """One pass of the finished file, whole, in what runs it."""
    inputs: Tensor = case.stream.inputs(case.calib[:1])
    how = case.format.name
    if how == "torch-export":
        from secateur.export.torch_export import FILE, load

        program = load(folder / FILE)
        return lambda: program(inputs)
    if how == "onnx":
        from secateur.export._graph import FILE, session

        given = {"images": inputs.float().numpy()} if isinstance(case.stream, Whole) else {"tokens": inputs.numpy()}
        run, feed = session(folder / FILE, torch.get_num_threads()), given
        return lambda: run.run(None, feed)
    if isinstance(case.stream, Whole):
        from secateur.export._vision import reopened

        whole: Any = reopened(folder)
        return lambda: whole(inputs.float())
    network: Any = reading.network(folder)
    return lambda: network(input_ids=inputs, use_cache=False)


def timed(case: Any) -> Any:
    """The case with a clock: its menus price seconds."""
    clocked = replace(case, clock=Latency(case))
    if case.device.type != "cpu":
        raise BudgetError(f"seconds are measured on the processor, not on {case.device}", "say --device cpu")
    return clocked


def _inputs(network: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of what every layer takes, by path."""
    found: dict[str, tuple[int, ...]] = {}
    kinds = nn.Conv1d, nn.Conv2d, nn.Linear
    glance(network, example, kinds, lambda path, _, x, out: found.update({path: tuple(x.shape)}))
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
