"""Image models as 8-bit ONNX: what ONNX Runtime runs in whole numbers from the input to the last layer.

Every cut layer has 8-bit weights with a scale a row. They lie as uint8 around 128 and not as int8: on processors with
AVX2 and no VNNI the runtime adds pairs of uint8 x int8 products in 16 bits, which overflow and are cut off in silence.
Activations get their ranges from the calibration examples, on the network as it is cut. Normalisations are folded into
the layer before them, which changes its scales and no code.

The input is float32 NCHW, already normalised, any number of pictures; metadata says mean and standard deviation.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.export import Finished
from secateur.export._dense import dense_encode, dense_layout, dense_refuses
from secateur.export._graph import DATA, FILE, OPSET, padded, quiet, ready, session
from secateur.export._graphed import Graphed
from secateur.export._qdq import Graph, activations, quantize, ranges, stand_apart
from secateur.export._rounded import lost
from secateur.export._verify import compare
from secateur.export._write import Layout
from secateur.export.torch_export import program_of
from secateur.maths.grids import Coded
from secateur.model.anatomy import Anatomy
from secateur.model.disk import atomic
from secateur.model.matrix import place
from secateur.model.resize import resized
from secateur.model.watch import Seen, glance
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import Edit, ExportError, Matrix, Unit

#: what 8-bit activations may do to the logits, as a share of their size; the weights are checked without them
ROUNDED_LIMIT = 0.3
#: calibration pictures that ranges are found on, those that tell what 8-bit activations cost, and how many run together
_PICTURES, _SEEN, _TOGETHER = 512, 256, 64


@dataclass(frozen=True, eq=False)
class OnnxPictures(Graphed):
    """`source` holds the tensors, `network` is uncut, `prepare` its preprocessing, `examples` are to calibrate on."""

    source: Any
    network: nn.Module
    prepare: Any
    examples: Any
    anatomy: Anatomy | None = None
    name: str = field(default="onnx")

    def __post_init__(self) -> None:
        ready()

    def edits(self) -> tuple[Edit, ...]:
        return (Keep(), Int(8, 0))

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        if why := dense_refuses(unit):
            return why
        if isinstance(edit, Keep) or edit == Int(8, 0):
            return None
        return "ONNX Runtime runs image models in 8 bits with a scale a row, int(bits=8, group=0), or in floats"

    def layout(self, unit: Unit, edit: Edit, dtype: str) -> dict[str, Layout]:
        if isinstance(edit, Keep):
            return dense_layout(unit, dtype)
        out: dict[str, Layout] = {}
        for m in unit.matrices:
            out[f"{m.key}.codes"] = "U8", (m.cols, m.rows) if self._patchwise(m) else _shape(m)
            out[f"{m.key}.scale"] = "F32", (m.rows,)
            out[f"{m.key}.zero"] = "U8", (m.rows,)
            if self._biased(m):
                out[f"{m.key}.bias_scale"] = "F32", (m.rows,)
        return out

    def encode(self, unit: Unit, edit: Edit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
        if isinstance(edit, Keep):
            return dense_encode(unit, coded, dtype)
        out: dict[str, Tensor] = {}
        for m in unit.matrices:
            tensors = coded[m.key].tensors
            codes = (tensors["codes"].to(torch.int16) + 128).to(torch.uint8)
            out[f"{m.key}.codes"] = codes.mT.contiguous() if self._patchwise(m) else codes.reshape(_shape(m))
            out[f"{m.key}.scale"] = tensors["scale"].float().reshape(m.rows).contiguous()
            out[f"{m.key}.zero"] = torch.full((m.rows,), 128, dtype=torch.uint8)
            if self._biased(m):
                out[f"{m.key}.bias_scale"] = torch.ones(m.rows)
        return out

    def seen(self, unit: Unit, edit: Edit, values: Tensor, dtype: str) -> Tensor:
        return values

    def layout_rest(self, stored: Mapping[str, Layout]) -> dict[str, Layout]:
        """Of a folded normalisation one vector remains, in place of its shift: the bias of the layer before it. All
        are encoded: what is folded is needed to fold."""
        gone = {f"{norm}.{part}" for norm in self.folded for part in ("weight", "running_mean", "running_var")}
        gone |= {f"{layer}.bias" for layer in self.folded.values()}
        return {name: one for name, one in stored.items() if name not in gone}

    def write(self, finished: Finished, folder: Path) -> list[Path]:
        held = {name: t for piece in finished.pieces for name, t in finished.parts.load(piece).items()}
        cut = {m.tensor: m for u in finished.units if isinstance(finished.edits[u.name], Int) for m in u.matrices}
        plain, graph, roots = self._floats(self._with(held, cut), cut)
        grids = ranges(plain, roots.values(), self._inputs(_PICTURES)) if roots else {}
        self._whole_numbers(graph, cut, held, {name: grids[root][0] for name, root in roots.items()})
        stand_apart(graph, roots)
        quantize(graph, {name: grids[root] for name, root in roots.items()})
        told = self.prepare.told()
        for key in ("mean", "std", "scale"):
            graph.model.metadata_props.add(key=key, value=json.dumps(told[key]))
        return _save(graph.model, self._kept(finished, held), folder)

    def verify(self, folder: Path, reference_logits: Tensor | None, inputs: Tensor) -> dict[str, Any]:
        """Run twice in ONNX Runtime: with activations as they are, where the logits must be ours, and as shipped."""
        import onnxruntime

        assert reference_logits is not None, "image models are in memory as a whole"
        reference = reference_logits.reshape(len(inputs), -1)
        exact = folder / ".exact.onnx"
        try:
            exact.write_bytes(_without_activations(folder / FILE))
            error = compare(_run(exact, inputs), reference, folder)
        finally:
            exact.unlink(missing_ok=True)
        rounded = compare(_run(folder / FILE, inputs), reference, folder, ROUNDED_LIMIT)
        said = f"onnxruntime {onnxruntime.__version__}"
        return {"verified_in": said, "logit_error": rounded, "logit_error_exact": error}

    def logits(self, folder: Path, inputs: Tensor) -> Tensor:
        """What the file as shipped makes of inputs: our own passes know nothing of rounded activations."""
        return torch.cat([_run(folder / FILE, some) for some in inputs.split(_TOGETHER)])

    def roundings(self) -> dict[str, tuple[float, float]]:
        """What the activations of each layer cost when all have 8 bits, by the layer's weight: KL in nats per example
        and its standard error, from the calibration examples. The weights stay as they are."""
        cut = {m.tensor: m for unit in self._units if dense_refuses(unit) is None for m in unit.matrices}
        plain, graph, roots = self._floats(copy.deepcopy(self.network).cpu(), cut)
        inputs = self._inputs(_SEEN)
        return lost(plain, graph, roots, ranges(plain, roots.values(), inputs), inputs)

    @property
    def _units(self) -> tuple[Unit, ...]:
        return self.anatomy.units if self.anatomy else ()

    def _inputs(self, n: int) -> np.ndarray:
        return self.prepare(self.examples.x[:n]).numpy()

    def _floats(self, network: nn.Module, cut: Mapping[str, Matrix]) -> tuple[Any, Graph, dict[str, str]]:
        """The network's graph in floats, another one of it to be rewritten, and what of that is to be rounded."""
        plain = _floats(network, torch.zeros(2, *self.prepare.shape))
        graph = Graph(type(plain)())
        graph.model.CopyFrom(plain)
        state = network.state_dict()
        graph.straighten({name: state[name].numpy() for name, m in cut.items() if self._patchwise(m)})
        return plain, graph, activations(graph, cut)

    @cached_property
    def _many(self) -> set[str]:
        """Linear layers that see several places of a picture (patches), which the graph multiplies as matrices."""
        found: set[str] = set()
        self._glance((nn.Linear,), lambda path, _, x, out: found.add(path) if x.dim() > 2 else None)
        return found

    def _glance(self, kinds: tuple[type[nn.Module], ...], see: Seen) -> None:
        device = next(self.network.parameters()).device
        glance(self.network, torch.zeros(2, *self.prepare.shape, device=device), kinds, see)

    def _patchwise(self, matrix: Matrix) -> bool:
        return place(matrix).module in self._many

    @cached_property
    def folded(self) -> dict[str, str]:
        """Normalisations that stand right behind a layer, with that layer: found by running the network once."""
        made: list[tuple[Any, str]] = []
        found: dict[str, str] = {}

        def see(path: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                found.update((path, layer) for y, layer in made if y is x)
            else:
                made.append((out, path))

        self._glance((nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d), see)
        return found

    def _biased(self, matrix: Matrix) -> bool:
        path = place(matrix).module
        if path in self._many:
            return False  # a sum of its own in the graph, in floats
        return path in self.folded.values() or f"{path}.bias" in self.source.tensors

    def _bias(self, matrix: Matrix) -> str:
        """The stored tensor whose place a layer's bias takes."""
        path = place(matrix).module
        return next((f"{norm}.bias" for norm, layer in self.folded.items() if layer == path), f"{path}.bias")

    def _with(self, held: Mapping[str, Tensor], cut: Mapping[str, Matrix]) -> nn.Module:
        """The network with the numbers that the file will hold, in float32."""
        state = {name: held[name].float() for name in self.network.state_dict() if name in held}
        for name, m in cut.items():
            codes = self._codes(m, held).float()
            state[name] = (codes * held[f"{m.key}.scale"][:, None]).reshape(_shape(m))
        network = resized(copy.deepcopy(self.network).cpu(), {name: tuple(t.shape) for name, t in state.items()})
        network.load_state_dict(state, strict=False)
        return network.eval()

    def _whole_numbers(
        self, graph: Graph, cut: Mapping[str, Matrix], held: dict[str, Tensor], inputs: Mapping[str, float]
    ) -> None:
        """Exchange the cut layers' weights and biases for codes, and fold what the exporter folded into the scales."""
        helper: Any = import_module("onnx.helper")
        arrays: Any = import_module("onnx.numpy_helper")
        whole = graph.model.graph
        if strange := [node.op_type for node in whole.node if node.op_type == "BatchNormalization"]:
            said = f"{len(strange)} normalisations do not stand right behind a layer, and cannot be folded"
            raise ExportError(said, "use --format torch-export")
        values = {one.name: arrays.to_array(one).copy() for one in whole.initializer}
        made: list[Any] = []
        gone: set[str] = set()
        for node in graph.layers:
            weight, m = node.input[1], cut[node.input[1]]
            codes, turned = self._codes(m, held).double(), self._patchwise(m)
            folded = torch.from_numpy(values[weight]).flatten(1).double()
            folded = folded.mT if turned else folded
            scale = ((folded * codes).sum(1) / codes.square().sum(1).clamp_min(1)).float()
            held[f"{m.key}.scale"] = torch.where(scale == 0, torch.full_like(scale, 1e-12), scale)
            names = [f"{m.key}.{part}" for part in ("codes", "scale", "zero")]
            made.append(helper.make_node("DequantizeLinear", names, [f"{m.key}.near"], axis=int(turned)))
            gone.add(weight)
            node.input[1] = f"{m.key}.near"
            if len(node.input) > 2:
                bias, wide = self._bias(m), inputs[node.input[0]] * held[f"{m.key}.scale"].double()
                gone.add(node.input[2])
                whole_bias = (torch.from_numpy(values[node.input[2]]).double() / wide).round()
                held[bias] = whole_bias.clamp(-(2.0**31), 2.0**31 - 1).to(torch.int32)
                held[f"{m.key}.bias_scale"] = wide.float()
                names = [bias, f"{m.key}.bias_scale"]
                made.append(helper.make_node("DequantizeLinear", names, [f"{m.key}.bias"], axis=0))
                node.input[2] = f"{m.key}.bias"
        rest = [one for one in whole.initializer if one.name not in gone]
        del whole.initializer[:]
        for one in rest:  # kept layers, into which the exporter has folded too
            plain = one.name.removesuffix("_bias").removesuffix(".weight").removesuffix(".bias")
            as_called = next((f"{n}.bias" for n, layer in self.folded.items() if layer == plain), one.name)
            name = as_called if one.name.endswith("bias") else one.name
            if name in held:
                held[name] = torch.from_numpy(values[one.name])
            else:
                whole.initializer.append(one)
            for node in whole.node:
                for at, read in enumerate(node.input):
                    if read == one.name:
                        node.input[at] = name
        nodes = list(whole.node)
        del whole.node[:]
        whole.node.extend(made + nodes)

    def _codes(self, matrix: Matrix, held: Mapping[str, Tensor]) -> Tensor:
        """Rows x columns, counted from the middle."""
        codes = held[f"{matrix.key}.codes"].short() - 128
        return codes.mT if self._patchwise(matrix) else codes.flatten(1)

    def _kept(self, finished: Finished, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What comes into the file: all that was priced."""
        rest: dict[str, Layout] = {name: ("F32", tuple(t.shape)) for name, t in held.items()}
        return {name: held[name] for name in self.layout_rest(rest)}


def _shape(matrix: Matrix) -> tuple[int, ...]:
    return matrix.stored or (matrix.rows, matrix.cols)


def _floats(network: nn.Module, example: Tensor) -> Any:
    """The float graph, normalisations folded, as a model of the onnx package."""
    program = program_of(network, example, (0,), "an image model")
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    with quiet(), torch.no_grad():
        made: Any = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False, **names)
    model = made.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    return model


def _taken_back(model: Any, name: str, values: np.ndarray) -> tuple[int, ...]:
    """Call a tensor by its own name again that tracing has turned into a constant of another shape (a group
    normalisation's), and give that shape; ExportError where the graph has no such constant."""
    arrays: Any = import_module("onnx.numpy_helper")
    for at, one in enumerate(model.graph.initializer):
        if one.data_location == 0 and arrays.to_array(one).tobytes() == values.tobytes():
            for node in model.graph.node:
                node.input[:] = [name if word == one.name else word for word in node.input]
            shape = tuple(one.dims)
            del model.graph.initializer[at]
            return shape
    raise ExportError(
        f"`{name}` is not in the graph that ONNX made of this network", "write another format, --format packed"
    )


def _merged(tensor: Tensor, held: Iterable[Tensor]) -> bool:
    """Whether tracing may have made one of this tensor and another, whose name it has then."""
    return sum(torch.equal(tensor, one) for one in held) > 1


def _save(model: Any, held: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """The graph, and beside it the tensors that were priced."""
    helper: Any = import_module("onnx.helper")
    onnx: Any = import_module("onnx")
    folder.mkdir(parents=True, exist_ok=True)
    read = {name for node in model.graph.node for name in node.input}
    at = 0
    with atomic(folder / DATA) as file:
        for name, tensor in sorted(held.items()):
            values = np.ascontiguousarray(tensor.numpy())
            known = name in read or _merged(tensor, held.values())
            shape = values.shape if known else _taken_back(model, name, values)
            entry = onnx.TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype))
            entry.dims.extend(shape)
            entry.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", DATA), ("offset", at), ("length", values.nbytes)):
                entry.external_data.add(key=key, value=str(value))
            model.graph.initializer.append(entry)
            file.write(values.tobytes() + bytes(padded(values.nbytes) - values.nbytes))
            at += padded(values.nbytes)
    with atomic(folder / FILE) as file:
        file.write(model.SerializeToString(deterministic=True))
    return [folder / DATA, folder / FILE]


def _without_activations(file: Path) -> bytes:
    """The same graph without the Q and DQ of activations: weights and biases remain what they are."""
    onnx: Any = import_module("onnx")
    model = onnx.load(str(file), load_external_data=False)
    plain: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            plain[node.output[0].removesuffix(".codes") + ".near"] = node.input[0]
    nodes = [n for n in model.graph.node if n.op_type != "QuantizeLinear" and n.output[0] not in plain]
    for node in nodes:
        for at, name in enumerate(node.input):
            node.input[at] = plain.get(name, name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def _run(file: Path, inputs: Tensor) -> Tensor:
    try:
        (logits,) = session(file).run(None, {"images": inputs.float().cpu().numpy()})
    except Exception as error:  # whatever a runtime of somebody else's raises, the file did not run
        raise ExportError(f"ONNX Runtime cannot run {file}: {type(error).__name__}: {error}", "report it") from error
    return torch.from_numpy(logits)
