"""torch.export: the real file, loaded by PyTorch alone, gives our logits to the bit at the bytes that were quoted."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
from torch import nn

from secateur.export import find
from secateur.export._verify import compare
from secateur.export._write import layout_bytes
from secateur.export.torch_export import _save, load, tensor_data, traced
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4
from secateur.parts.edits.rank import Rank
from secateur.parts.reading import open_reading
from secateur.types import ExportError, ModelError

EDITS = (
    Int(3, 32),
    Nvfp4(),
    Int(1, 16, symmetric=False, zero="fp8"),
    Mxfp4(),
    Int(5, 0),
    Fp8(),
    Keep(),
    Int(2, 32, scale="fp8"),
    Int(4, 32, symmetric=False),
)


@pytest.mark.parametrize(("family", "dtype"), [("llama-tied", "bfloat16"), ("gpt2", "float16")], ids=["llama", "gpt2"])
def test_pytorch_alone_gives_our_logits_to_the_bit(tiny, cutter, tmp_path, family, dtype):
    cut = cutter(tiny(family, dtype), tmp_path, "torch-export", cutter.rotate(*EDITS))
    found = cut.format.verify(tmp_path, cut.logits, cut.tokens)
    assert found == {"verified_in": f"torch {torch.__version__}", "logit_error": 0.0}

    disk, file = cut.format.disk, tmp_path / "model.pt2"
    quoted = sum(disk.tensor_bytes(name, layout) for name, layout in cut.layouts.items())
    assert disk.priced([file]) == tensor_data(file) == quoted == sum(map(layout_bytes, cut.layouts.values()))
    assert file.stat().st_size - quoted < 60_000  # the graph of two blocks

    program = load(file)
    with torch.no_grad():
        whole = program(cut.tokens)
        assert torch.equal(program(cut.tokens[:1]), whole[:1])
        assert torch.allclose(program(cut.tokens[:, :1]), whole[:, :1], atol=1e-5)
        assert program(torch.zeros(3, 20, dtype=torch.long)).shape == (3, 20, whole.shape[-1])

    with pytest.raises(ExportError, match="its logits differ"):
        compare(whole, cut.logits * 1.01, tmp_path)
    with pytest.raises(ModelError, match="holds a model as torch-export, which is run, not read"):
        open_reading(tmp_path)


def test_a_low_rank_is_two_matrices_in_the_graph_and_never_one(tiny, cutter, tmp_path):
    """Factors plain and on a grid, in layers that have a bias (of GPT-2, held the other way round)."""
    ranks = Rank(0.5), Rank(0.5, "int(bits=4, group=8)")
    cut = cutter(tiny("gpt2", "float16"), tmp_path, "torch-export", cutter.rotate(*ranks))
    assert cut.format.verify(tmp_path, cut.logits, cut.tokens)["logit_error"] < 1e-5
    quoted = sum(cut.format.disk.tensor_bytes(name, layout) for name, layout in cut.layouts.items())
    assert cut.format.disk.priced([tmp_path / "model.pt2"]) == quoted
    (down,) = {m for unit in cut.units for m in unit.matrices if m.key.endswith("h.0.mlp.c_proj.weight")}
    graph = torch.export.load(tmp_path / "model.pt2").graph
    values = [node.meta["val"] for node in graph.nodes if hasattr(node.meta.get("val"), "shape")]
    shapes = {tuple(map(str, value.shape)) for value in values}
    assert (str(ranks[0].rank(down.rows, down.cols)), str(down.cols)) in shapes
    assert not {(str(down.rows), str(down.cols)), (str(down.cols), str(down.rows))} & shapes


class Half(nn.Module):
    """A network of the smallest kind that `traced` takes."""

    def __init__(self, branch: bool = False):
        super().__init__()
        self.table, self.branch = nn.Embedding(8, 4), branch

    def forward(self, input_ids, use_cache):
        x = self.table(input_ids)
        if self.branch and x.sum() > 0:
            x = -x
        return type("Out", (), {"logits": x * 0.5})


def test_the_same_network_is_the_same_bytes(tmp_path):
    network = Half()
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        files.append(_save(traced(network, "half"), tmp_path / name / "model.pt2"))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(tmp_path.rglob(".*"))
    weights = [one for one in zipfile.ZipFile(files[0]).infolist() if "/weights/weight_" in one.filename]
    assert weights and all(one.compress_type == zipfile.ZIP_STORED for one in weights)


def test_what_cannot_be_traced_is_said(tmp_path):
    with pytest.raises(ExportError, match=r"cannot trace Half of somewhere: .*\nhint: use another format"):
        traced(Half(branch=True), "somewhere")


@pytest.mark.parametrize(
    "name", ["data/sample_inputs/model.pt", "data/constants/custom_obj_0", "serialized_state_dict.pt", "version"]
)
def test_nothing_is_unpickled(tmp_path, name):
    file = _save(traced(Half(), "half"), tmp_path / "model.pt2")
    assert load(file)(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 4)
    bomb = io.BytesIO()
    torch.save(torch.zeros(1), bomb)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as new:
        for one in old.infolist():
            if one.filename != f"model/{name}":
                new.writestr(one.filename, old.read(one))
        new.writestr(f"model/{name}", bomb.getvalue())
    with pytest.raises(ExportError, match=f"holds `model/{name}`, which Secateur never writes"):
        load(tmp_path / "bad.pt2")


def test_holds_what_packed_holds():
    assert find("torch-export").edits() == find("packed").edits()
