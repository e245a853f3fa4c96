"""ONNX: what the real runtime computes from our blocks, and whole models through the real file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.export import find
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import ExportError, Matrix, ModelError, Unit

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from onnx import helper, numpy_helper  # noqa: E402

from secateur.export import _blocks, _graph  # noqa: E402
from secateur.export._graph import DATA, FILE, session, widths  # noqa: E402
from secateur.export.onnx import Onnx, run  # noqa: E402
from secateur.parts.reading import open_reading  # noqa: E402

FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16


def run_node(op: str, x: np.ndarray, held: dict, edit: Int, **how) -> np.ndarray:
    """One operator over a matrix's stored tensors, scales cast as our graphs do it."""
    constants, names = [], []
    for name, tensor in held.items():
        kind = {torch.float16: FLOAT16, torch.bfloat16: BFLOAT16, torch.float32: FLOAT, torch.uint8: 2}[tensor.dtype]
        tensor = tensor.flatten(1) if name == "codes" and op == "GatherBlockQuantized" else tensor
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        constants.append(helper.make_tensor(name, kind, tensor.shape, raw, raw=True))
        names.append("float_scale" if name == "scale" else name)
    cast = helper.make_node("Cast", ["scale"], ["float_scale"], to=FLOAT)
    how = {"bits": edit.bits, "block_size": edit.group, **how}
    inputs = ["x", *names] if op == "MatMulNBits" else [names[0], "x", *names[1:]]
    node = helper.make_node(op, inputs, ["y"], domain="com.microsoft", **how)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    ends = [helper.make_tensor_value_info("x", kind, x.shape), helper.make_tensor_value_info("y", FLOAT, None)]
    graph = helper.make_graph([cast, node], "one", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return session(model.SerializeToString(), 1).run(None, {"x": x})[0]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_contract_the_runtime_computes_what_we_packed(cutter, bits, group, symmetric, dtype):
    random = torch.Generator().manual_seed(bits * group)
    edit, matrix = Int(bits, group, symmetric), Matrix("m", 7, 3 * group, "m")
    coded = cutter.round(torch.randn(7, 3 * group, generator=random), edit, dtype)
    held = {n.removeprefix("m."): t for n, t in _blocks.encode(matrix, edit, coded.tensors, dtype).items()}
    assert {f"m.{n}": tuple(t.shape) for n, t in held.items()} == {
        name: shape for name, (_, shape) in _blocks.layout(matrix, edit, dtype).items()
    }
    x = torch.randn(2, 3, 3 * group, generator=random)
    made = run_node("MatMulNBits", x.numpy(), held, edit, K=3 * group, N=7, accuracy_level=_blocks.EXACT)
    assert np.allclose(made, x @ coded.values.T, atol=1e-4 * float(coded.values.norm()))
    ids = torch.tensor([[3, 0], [6, 6]])
    rows = run_node("GatherBlockQuantized", ids.numpy(), held, edit, gather_axis=0, quantize_axis=1)
    assert np.array_equal(rows, coded.values[ids].numpy())


def test_by_hand():
    """Two rows of two blocks of 16, 4 bits: 1 2 1 2 ... is the byte 0x21; zero points 3 and 5 are 0x53."""
    edit, matrix = Int(4, 16, symmetric=False), Matrix("m", 2, 32, "m")
    codes = torch.tensor([1, 2]).repeat(2, 16)
    tensors = {"codes": codes, "scale": torch.full((2, 2), 0.5), "zero": torch.tensor([[3, 5], [0, 15]])}
    held = _blocks.encode(matrix, edit, tensors, "float32")
    assert held["m.codes"].shape == (2, 2, 8) and set(held["m.codes"].flatten().tolist()) == {0x21}
    assert held["m.zero"].tolist() == [[0x53], [0xF0]]
    three = _blocks.encode(Matrix("m", 1, 48, "m"), Int(2, 16, False), _three_blocks(), "float16")
    assert three["m.zero"].tolist() == [[0b00_11_10_01]]  # the last two bits fill the byte


def _three_blocks():
    return {"codes": torch.zeros(1, 48), "scale": torch.ones(1, 3), "zero": torch.tensor([[1, 2, 3]])}


EDITS = (Int(4, 32), Int(8, 16, symmetric=False), Int(2, 32), Keep(), Int(4, 32, symmetric=False))


@pytest.mark.parametrize(("family", "dtype"), [("llama-tied", "bfloat16"), ("gpt2", "float16")], ids=["llama", "gpt2"])
def test_a_model_runs_in_the_runtime(tiny, cutter, tmp_path, family, dtype):
    cut = cutter(tiny(family, dtype), tmp_path, "onnx", cutter.rotate(*EDITS))
    assert any(
        isinstance(e, Int) and u.kind == "embedding" for u, e in zip(cut.units, cut.plan.edits.values(), strict=True)
    )
    found = cut.format.verify(tmp_path, cut.logits, cut.tokens)
    assert found["logit_error_exact"] < 1e-5 and found["verified_in"].startswith("onnxruntime ")
    assert 0 < found["logit_error"] < 0.1

    disk, files = cut.format.disk, [tmp_path / DATA, tmp_path / FILE]
    quoted = sum(disk.tensor_bytes(name, layout) for name, layout in cut.layouts.items())
    assert disk.files(tmp_path) == files and disk.priced(files) == quoted == files[0].stat().st_size
    assert files[1].stat().st_size < 60_000 and not list(tmp_path.glob(".*.onnx"))
    stored = {
        one.name for one in onnx.load(str(files[1]), load_external_data=False).graph.initializer if one.external_data
    }
    assert stored == set(cut.layouts)
    for one in onnx.load(str(files[1])).graph.initializer:  # any reader finds them where the graph says they are
        assert one.name not in stored or numpy_helper.to_array(one).shape == cut.layouts[one.name][1]

    whole = run(files[1], cut.tokens)
    assert torch.allclose(run(files[1], cut.tokens[:1, :1]), whole[:1, :1], atol=0.05 * float(whole.abs().max()))
    with pytest.raises(ExportError, match="its logits differ"):
        cut.format.verify(tmp_path, cut.logits * 1.01, cut.tokens)
    assert not list(tmp_path.glob(".*.onnx"))
    with pytest.raises(ModelError, match="holds a model as onnx, which is run, not read"):
        open_reading(tmp_path)
    files[0].write_bytes(files[0].read_bytes()[: quoted // 2])
    with pytest.raises(ExportError, match="ONNX Runtime cannot run"):
        cut.format.verify(tmp_path, cut.logits, cut.tokens)


def test_refuses_with_a_reason():
    unit = Unit("m", "linear", (Matrix("m.weight", 4, 96, "m"),))
    form = Onnx()
    assert form.refuses(unit, Int(4, 32)) is form.refuses(unit, Int(8, 16, symmetric=False)) is None
    assert form.refuses(unit, Keep()) is None
    assert form.refuses(unit, Int(3, 32)) == "ONNX Runtime runs integers of 2, 4 and 8 bits, not of 3"
    assert form.refuses(unit, Int(4, 64)) == "rows of 96 do not divide into groups of 64"
    assert "not of 24" in form.refuses(unit, Int(4, 24)) and "not of a whole row" in form.refuses(unit, Int(4, 0))
    assert "whole-number zero points" in form.refuses(unit, Int(4, 32, False, zero="fp8"))
    assert "blocks of integers only" in form.refuses(unit, Fp8())
    experts = Unit("e", "experts", (Matrix("e.down_proj", 4, 32, "e", index=0),))
    assert "not written yet" in form.refuses(experts, Int(4, 32)) and form.refuses(experts, Keep()) is None
    assert all(form.refuses(Unit("m", "linear", (Matrix("m", 8, 256, "m"),)), edit) is None for edit in form.edits())


def test_the_runtime_is_asked_what_it_runs(monkeypatch, tiny):
    assert {4, 8} <= set(widths()) <= {2, 4, 8}
    assert not _graph._runs(16)
    form = find("onnx", {}, None, object())  # of some model: then the installed runtime decides
    monkeypatch.setattr("secateur.export.onnx.widths", lambda: (4, 8))
    unit = Unit("m", "linear", (Matrix("m.weight", 4, 64, "m"),))
    assert form.refuses(unit, Int(2, 32)) == "the installed ONNX Runtime does not run integers of 2 bits"


@pytest.mark.parametrize(
    ("found", "said"),
    [(None, "needs onnxscript, which is not installed"), ("0.1.0", "needs onnxscript 0.5 or newer, and 0.1.0 is")],
)
def test_a_runtime_that_is_missing_or_old_is_said_before_the_work(monkeypatch, found, said):
    def version(name: str) -> str:
        if name != "onnxscript":
            return "99.0"
        if found is None:
            raise _graph.PackageNotFoundError
        return found

    monkeypatch.setattr(_graph, "version", version)
    with pytest.raises(ExportError, match=said) as error:
        find("onnx", {}, None, object())
    assert error.value.hint == "pip install 'secateur[onnx]'"
    assert find("onnx").name == "onnx"  # without a model nothing needs to be there
