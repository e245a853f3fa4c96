"""ONNX files: a traced network as a graph, its tensors beside it, and the runtime that runs both.

`model.onnx` is the graph, text and small constants, and `model.onnx.data` every tensor that was quoted, one after the
other, each filled up to 64 bytes. So no file ever meets the 2 GB that a protobuf may have, and the price is the size of
one file, to the byte.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.model.disk import atomic
from secateur.types import ExportError

FILE, DATA = "model.onnx", "model.onnx.data"
ALIGN = 64
#: files of this opset need no runtime newer than what runs them needs anyway; 25 would shut most of them out
OPSET = 18
#: what the graph takes a stored tensor for: the name of ONNX's number type, and the shape
Kind = tuple[str, tuple[int, ...]]
_GET = "pip install 'secateur[onnx]'"


def ready() -> None:
    """ExportError if something that writing and checking takes is missing or too old."""
    for name, least in (("onnx", (1, 18)), ("onnxscript", (0, 5)), ("onnxruntime", (1, 23))):
        try:
            found = version(name)
        except PackageNotFoundError:
            raise ExportError(f"writing ONNX needs {name}, which is not installed", _GET) from None
        if tuple(int(word) for word in found.split(".")[:2]) < least:
            wanted = ".".join(map(str, least))
            raise ExportError(f"writing ONNX needs {name} {wanted} or newer, and {found} is installed", _GET)
    if not hasattr(torch.onnx, "ops"):
        raise ExportError(
            f"writing ONNX needs torch 2.8 or newer, and {torch.__version__} is installed", "upgrade torch"
        )


def padded(size: int) -> int:
    """Bytes that a tensor of `size` bytes takes in the data file."""
    return -(-size // ALIGN) * ALIGN


def graph(
    program: torch.export.ExportedProgram,
    inputs: str,
    outputs: str,
    held: Mapping[str, Tensor],
    opset: int = OPSET,
    kinds: Mapping[str, Kind] | None = None,
) -> Any:
    """The ONNX graph of a traced network, its stored tensors under the names that `held` has for them; those of
    `kinds` are bytes to torch and something else to ONNX."""
    from onnxscript import ir
    from onnxscript.optimizer import optimize_ir

    with quiet():
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[inputs],
            output_names=[outputs],
            optimize=False,
            verbose=False,
        )
        model = made.model
        name_of = {tensor.data_ptr(): name for name, tensor in held.items() if tensor.numel()}
        values = {}
        for value in list(model.graph.initializers.values()):
            if (name := name_of.get(value.const_value.raw.data_ptr())) is not None:
                value.name = name
                # while it has no numbers, nothing is folded into float32, and twins by chance are not made one
                values[name], value.const_value = value.const_value, None
                if name in (kinds or {}):
                    number, shape = (kinds or {})[name]
                    value.dtype, value.shape = ir.DataType[number], ir.Shape(shape)
        optimize_ir(model)
        for name, value in model.graph.initializers.items():
            value.const_value = values.get(name, value.const_value)
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.initializers.values(), *(out for node in model.graph for out in node.outputs)):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    return model


def save(model: Any, held: Mapping[str, Tensor], folder: Path, about: Mapping[str, str]) -> list[Path]:
    """Write the graph and, beside it, the tensors of `held`; metadata is `about`. The graph comes last."""
    from onnxscript import ir

    folder.mkdir(parents=True, exist_ok=True)
    at = 0
    with atomic(folder / DATA) as file:
        for name, tensor in held.items():
            value = model.graph.initializers.get(name)
            if value is None:
                raise ExportError(f"`{name}` is not in the graph that was traced", "please report this")
            kind, shape = value.dtype or value.const_value.dtype, value.shape or value.const_value.shape
            value.const_value = ir.ExternalTensor(
                DATA, at, tensor.nbytes, kind, shape=shape, name=name, base_dir=folder
            )
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            file.write(bytes(padded(tensor.nbytes) - tensor.nbytes))
            at += padded(tensor.nbytes)
    model.metadata_props.update(about)
    with atomic(folder / FILE) as file:
        file.write(ir.to_proto(model).SerializeToString(deterministic=True))
    return [folder / DATA, folder / FILE]


def session(file: Path | bytes, threads: int = 0, literal: bool = False) -> Any:
    """ONNX Runtime on the CPU with a file; `literal` runs the graph as it is written, nothing fused.

    `qdq_matmulnbits_accuracy_level` is for graphs of others: where the runtime fuses DequantizeLinear and MatMul it
    would round inputs to 8 bits without being asked."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if literal:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    given = file if isinstance(file, bytes) else str(file)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


@cache
def widths() -> tuple[int, ...]:
    """Bits that MatMulNBits of the installed ONNX Runtime takes: each tried once, on a matrix of one row.

    The operator's description says 2 to 8. Version 1.31 runs 2, 4 and 8, older ones 4 and 8.
    """
    return tuple(bits for bits in (2, 4, 8) if _runs(bits))


def _runs(bits: int) -> bool:
    import numpy as np

    helper: Any = import_module("onnx.helper")
    arrays: Any = import_module("onnx.numpy_helper")
    held = {"b": np.zeros((1, 1, 32 * bits // 8), np.uint8), "s": np.ones((1, 1), np.float32)}
    how = {"K": 32, "N": 1, "bits": bits, "block_size": 32}
    node = helper.make_node("MatMulNBits", ["a", "b", "s"], ["y"], domain="com.microsoft", **how)
    ends = [helper.make_tensor_value_info(name, 1, [1, size]) for name, size in (("a", 32), ("y", 1))]
    whole = helper.make_graph([node], "try", ends[:1], ends[1:], [arrays.from_array(v, k) for k, v in held.items()])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(whole, opset_imports=opsets, ir_version=8)
    try:
        out = session(model.SerializeToString(), 1).run(None, {"a": np.ones((1, 32), np.float32)})[0]
    except Exception:  # refused, in whatever words
        return False
    return float(out[0, 0]) == -32 * 2 ** (bits - 1)


@contextmanager
def quiet() -> Iterator[None]:
    """What the exporter says of its own passes is not our user's business: the file is checked."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
