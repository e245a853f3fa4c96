"""Vision transformers: built from timm's names, cut by the front door, and run by the real runtimes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from secateur.cut import cut
from secateur.model.builtin.vit import ViT, prepare
from secateur.parts.vision import open_vision

WIDTH, PATCH, SIDE, DEPTH, CLASSES = 64, 8, 32, 2, 10


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Random weights, and pictures that it labels itself."""
    place, draw = tmp_path_factory.mktemp("vit"), torch.Generator().manual_seed(0)

    def normal(*shape: int, by: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=draw) * by

    tensors = {
        "cls_token": normal(1, 1, WIDTH),
        "pos_embed": normal(1, (SIDE // PATCH) ** 2 + 1, WIDTH, by=0.3),
        "patch_embed.proj.weight": normal(WIDTH, 3, PATCH, PATCH, by=0.1),
        "patch_embed.proj.bias": normal(WIDTH, by=0.1),
    }

    def linear(path: str, rows: int, cols: int) -> None:
        tensors[f"{path}.weight"], tensors[f"{path}.bias"] = normal(rows, cols, by=cols**-0.5), normal(rows, by=0.1)

    def norm(path: str) -> None:
        tensors[f"{path}.weight"], tensors[f"{path}.bias"] = 1 + normal(WIDTH, by=0.1), normal(WIDTH, by=0.1)

    for at in range(DEPTH):
        norm(f"blocks.{at}.norm1")
        norm(f"blocks.{at}.norm2")
        linear(f"blocks.{at}.attn.qkv", 3 * WIDTH, WIDTH)
        linear(f"blocks.{at}.attn.proj", WIDTH, WIDTH)
        linear(f"blocks.{at}.mlp.fc1", 4 * WIDTH, WIDTH)
        linear(f"blocks.{at}.mlp.fc2", WIDTH, 4 * WIDTH)
    norm("norm")
    linear("head", CLASSES, WIDTH)
    file = place / "tiny.safetensors"
    save_file(tensors, file)
    images = torch.randint(0, 256, (120, SIDE, SIDE, 3), generator=draw, dtype=torch.uint8)
    seen = open_vision(file)
    with torch.no_grad():
        labels = seen.network(seen.prepare(images)).argmax(1)
    np.savez(place / "data.npz", images=images.numpy(), labels=labels.numpy())
    return file, place / "data.npz"


def test_what_its_tensors_say(small):
    seen = open_vision(small[0])
    assert isinstance(seen.network, ViT) and seen.prepare.shape == (3, SIDE, SIDE)
    assert len(seen.network.blocks) == DEPTH and seen.network.blocks[0].attn.heads == 1
    shapes = {name: tuple(seen.held.read(name).shape) for name in seen.held.tensors}
    assert prepare("deit_tiny", shapes).told()["mean"][0] == pytest.approx(0.485)


@pytest.mark.parametrize("form", ["packed", "torch-export"])
def test_cut_to_bits(small, tmp_path, form):
    model, data = map(str, small)
    told = cut(model, data, "6 bits/weight", out=tmp_path, format=form, samples=60)
    assert told["spent"]["bits_per_weight"] <= 6 and told["export"]["logit_error"] < 1e-3
    assert told["damage_predicted"] > 0 and told["coverage"] > 0.9


def test_channels_between_its_mlps_can_go(small, tmp_path):
    model, data = map(str, small)
    told = cut(model, data, "80% flops", out=tmp_path, format="packed", samples=60)
    places = (SIDE // PATCH) ** 2
    before = 2 * (DEPTH * 12 * WIDTH**2 * (places + 1) + WIDTH * 3 * PATCH**2 * places + CLASSES * WIDTH)
    assert told["spent"]["flops"] <= 0.8 * before and any("channels" in edit for edit in told["edits"].values())


def test_eight_bits_in_onnx(small, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from secateur.export._graph import DATA, FILE

    model, data = map(str, small)
    told = cut(model, data, "9.5 bits/weight", out=tmp_path, format="onnx", samples=60)["export"]
    assert told["logit_error_exact"] < 1e-3 and 0 < told["logit_error"] < 0.2
    assert told["bytes_priced"] == (tmp_path / DATA).stat().st_size
    graph = onnx.load(str(tmp_path / FILE)).graph
    by_name = {one.name: one for one in graph.initializer}
    eights = [name for name in by_name if name.endswith(".codes") and by_name[name].data_type == onnx.TensorProto.UINT8]
    assert len(eights) >= 4 * DEPTH
    products = [node for node in graph.node if node.op_type == "MatMul" and ".codes" not in node.input[1]]
    assert sum(node.input[1].endswith("weight.near") for node in products) >= 4 * DEPTH - 2
