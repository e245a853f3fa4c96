"""ONNX of standard operators: what the real runtime dequantizes from our blocks, and whole models through the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import Matrix, Unit

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from onnx import helper  # noqa: E402

from secateur.export import _standard  # noqa: E402
from secateur.export._graph import DATA, FILE, session  # noqa: E402
from secateur.export.onnx_qdq import OnnxQdq  # noqa: E402


def dequantized(matrix: Matrix, edit: Int, held: dict, looked_up: bool) -> np.ndarray:
    """A matrix's stored tensors as the runtime reads them."""
    kinds, constants, names = _standard.kinds(matrix, edit, looked_up), [], []
    for name, tensor in held.items():
        number, shape = kinds.get(name, ("FLOAT", tuple(tensor.shape)))
        raw = (tensor.float() if number == "FLOAT" else tensor).contiguous().numpy().tobytes()
        constants.append(helper.make_tensor(name, getattr(onnx.TensorProto, number), shape, raw, raw=True))
        names.append(name)
    names.sort(key=["m.codes", "m.scale", "m.zero"].index)
    node = helper.make_node("DequantizeLinear", names, ["y"], axis=int(looked_up), block_size=edit.group)
    shape = (matrix.rows, matrix.cols) if looked_up else (matrix.cols, matrix.rows)
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "one", [], [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _standard.OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return session(model.SerializeToString(), 1).run(None, {})[0]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [16, 64])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("looked_up", [True, False])
def test_contract_the_runtime_reads_what_we_packed(cutter, bits, group, symmetric, looked_up):
    random = torch.Generator().manual_seed(bits * group)
    edit, matrix = Int(bits, group, symmetric), Matrix("m", 7, 3 * group, "m")
    coded = cutter.round(torch.randn(7, 3 * group, generator=random), edit, "float16")
    held = _standard.encode(matrix, edit, coded.tensors, "float16", looked_up)
    layout = _standard.layout(matrix, edit, "float16", looked_up)
    assert {name: tuple(t.shape) for name, t in held.items()} == {name: shape for name, (_, shape) in layout.items()}
    made = dequantized(matrix, edit, held, looked_up)
    assert np.array_equal(made if looked_up else made.T, coded.values.numpy())


@pytest.mark.parametrize(("family", "dtype"), [("llama-tied", "bfloat16"), ("gpt2", "float16")], ids=["llama", "gpt2"])
def test_a_model_of_standard_operators_runs(tiny, cutter, tmp_path, family, dtype):
    edits = (Int(4, 32), Int(8, 16, symmetric=False), Keep(), Int(4, 32, symmetric=False))
    cut = cutter(tiny(family, dtype), tmp_path, "onnx-qdq", cutter.rotate(*edits))
    found = cut.format.verify(tmp_path, cut.logits, cut.tokens)
    assert found["logit_error"] < 1e-5 and found["verified_in"].startswith("onnxruntime ")
    disk, files = cut.format.disk, [tmp_path / DATA, tmp_path / FILE]
    quoted = sum(disk.tensor_bytes(name, layout) for name, layout in cut.layouts.items())
    assert disk.priced(files) == quoted == files[0].stat().st_size
    model = onnx.load(str(files[1]))
    assert {one.domain for one in model.opset_import} == {""} and not any(node.domain for node in model.graph.node)
    onnx.checker.check_model(model)
    numbers = {onnx.TensorProto.DataType.Name(one.data_type) for one in model.graph.initializer}
    assert {"INT4", "UINT4", "UINT8"} <= numbers


def test_what_it_cannot_hold_is_said():
    unit = Unit("u", "linear", (Matrix("u", 8, 128, "u"),), 0)
    form = OnnxQdq()
    assert form.refuses(unit, Int(4, 32)) is None and form.refuses(unit, Keep()) is None
    for edit, said in ((Int(2, 32), "4 and 8 bits"), (Int(4, 0), "a whole row"), (Fp8(), "integers only")):
        assert said in str(form.refuses(unit, edit))
