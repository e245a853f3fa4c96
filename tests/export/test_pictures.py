"""Image models in the real runtimes: 8-bit ONNX and torch.export, through the front door, at the bytes quoted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from secateur.cut import cut
from secateur.export._qdq import fitted
from secateur.export.torch_export import load, tensor_data
from secateur.model.pictures import read_pictures
from secateur.parts.menus import load_menu
from secateur.parts.vision import open_vision

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from secateur.export._graph import DATA, FILE, session  # noqa: E402


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A residual network of one block a stage, random weights, and pictures that it labels itself."""
    place = tmp_path_factory.mktemp("small")
    draw = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}

    def layer(conv: str, norm: str, rows: int, cols: int) -> None:
        tensors[f"{conv}.weight"] = torch.randn(rows, cols, 3, 3, generator=draw) / (9 * cols) ** 0.5
        for part, around in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"{norm}.{part}"] = (torch.randn(rows, generator=draw) * 0.2 + around).contiguous()
        tensors[f"{norm}.weight"][0] *= -1  # folded, the scale of this row is negative

    layer("conv1", "bn1", 8, 3)
    for stage, (cols, rows) in enumerate(((8, 8), (8, 16), (16, 16)), 1):
        layer(f"layer{stage}.0.conv1", f"layer{stage}.0.bn1", rows, cols)
        layer(f"layer{stage}.0.conv2", f"layer{stage}.0.bn2", rows, rows)
    tensors["linear.weight"] = torch.randn(10, 16, generator=draw)
    tensors["linear.bias"] = torch.randn(10, generator=draw)
    save_file(tensors, place / "resnet8.safetensors")
    images = torch.randint(0, 256, (160, 32, 32, 3), generator=draw, dtype=torch.uint8)
    seen = open_vision(place / "resnet8.safetensors")
    with torch.no_grad():
        labels = seen.network(seen.prepare(images)).argmax(1)
    np.savez(place / "data.npz", images=images.numpy(), labels=labels.numpy())
    return place / "resnet8.safetensors", place / "data.npz"


def test_onnx_runs_in_whole_numbers(small, tmp_path):
    model, data = map(str, small)
    coded = ("layer1.*", "layer2.0.conv2", "layer3.*", "linear")
    pin = {**dict.fromkeys(coded, "int(8, 0)"), "layer2.0.conv1": "keep()"}
    result = cut(model, data, "20 bits/weight", out=tmp_path, format="onnx", samples=60, pin=pin)
    told = result["export"]
    assert result["folded"] == 7 and load_menu(tmp_path / "menu").about["folded"] == 7
    assert told["logit_error_exact"] < 1e-3 and 0 < told["logit_error"] < 0.1
    assert told["bytes_priced"] == (tmp_path / DATA).stat().st_size
    assert told["verified_in"].startswith("onnxruntime ")

    graph = onnx.load(str(tmp_path / FILE))
    assert {one.key for one in graph.metadata_props} == {"mean", "std", "scale"}
    assert not any(node.op_type == "BatchNormalization" for node in graph.graph.node)
    weights = {one.name: one for one in graph.graph.initializer}
    assert weights["layer1.0.conv1.weight.codes"].data_type == onnx.TensorProto.UINT8
    assert weights["layer2.0.conv1.weight"].data_type == onnx.TensorProto.FLOAT
    assert _whole_layers(tmp_path / FILE) == 5  # the runtime leaves both kept ones in floats

    seen, runtime = open_vision(model), session(tmp_path / FILE)
    x = seen.prepare(read_pictures(data).x[:40])
    (made,) = runtime.run(None, {"images": x.numpy()})
    (one,) = runtime.run(None, {"images": x[:1].numpy()})
    assert np.allclose(made[:1], one, atol=1e-4)
    with torch.no_grad():
        ours = seen.network(x).numpy()
    assert np.linalg.norm(made - ours) < 0.1 * np.linalg.norm(ours)

    # what is reported is what the runtime does, and rounded activations were expected
    assert result["kl_exact"] < 0.2 * result["kl"]
    assert 0.3 < result["kl_predicted"] / result["kl"] < 6  # as if all layers were coded


def _whole_layers(file) -> int:
    """Convolutions that the runtime runs in whole numbers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(file.with_name("optimized.onnx"))
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    return sum(node.op_type == "QLinearConv" for node in graph.node)


def test_torch_export_is_ours(small, tmp_path):
    model, data = map(str, small)
    told = cut(model, data, "5 bits/weight", out=tmp_path, format="torch-export", samples=60)["export"]
    assert told["logit_error"] < 1e-6 and told["bytes_priced"] == tensor_data(tmp_path / "model.pt2")
    with torch.no_grad():
        assert load(tmp_path / "model.pt2")(torch.zeros(5, 3, 32, 32)).shape == (5, 10)


def test_ranges_by_hand():
    scale, zero = fitted(np.array([0.0, 0.5, 1.0], np.float32))
    assert zero == 0 and scale == pytest.approx(1 / 255, rel=0.4)
    scale, zero = fitted(np.linspace(-1, 1, 511, dtype=np.float32))
    assert zero in (127, 128) and scale == pytest.approx(2 / 255, rel=1e-3)
    crowd = np.concatenate([np.linspace(0, 1, 100_000), [1.5]]).astype(np.float32)
    assert fitted(crowd)[0] * 255 < 1.4  # one number far out does not set the range


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_fewer_channels_in_graphs(small, tmp_path, form):
    """Blocks and trunks with fewer channels, shortcuts of empty ones among them: the runtime's logits are ours."""
    model, data = map(str, small)
    result = cut(model, data, "40% flops", out=tmp_path, format=form, samples=60)
    told = result["export"]
    assert result["edits"]["trunks"].startswith("trunks(") and result["spent"]["flops"] <= result["budget"]["flops"]
    assert told["bytes_priced"] == result["spent"]["bytes"]
    assert told.get("logit_error_exact", told["logit_error"]) < 1e-3
    if form == "onnx":
        x = open_vision(model).prepare(read_pictures(data).x[:4])
        assert session(tmp_path / FILE).run(None, {"images": x.numpy()})[0].shape == (4, 10)


def test_a_mobilenet_loses_channels_and_runs_in_onnx(tmp_path):
    """Depthwise layers, widened channels and shortcuts: fewer FLOPs, and the runtime's logits are ours."""
    draw, tensors, now = torch.Generator().manual_seed(0), {}, 6

    def layer(conv: str, norm: str, rows: int, cols: int, kernel: int) -> None:
        tensors[f"{conv}.weight"] = torch.randn(rows, cols, kernel, kernel, generator=draw) / (cols * kernel**2) ** 0.5
        for part, around in (("weight", 1.0), ("bias", 0.3), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"{norm}.{part}"] = (torch.randn(rows, generator=draw) * 0.1 + around).abs()

    layer("conv_stem", "bn1", now, 3, 3)
    for stage, (width, blocks) in enumerate(((6, 1), (8, 2), (8, 1), (8, 1), (8, 1), (8, 1), (8, 1))):
        for path, wide in ((f"blocks.{stage}.{at}", 12) for at in range(blocks)):
            if stage:
                layer(f"{path}.conv_pw", f"{path}.bn1", wide, now, 1)
            inner, n = (wide, 2) if stage else (now, 1)
            layer(f"{path}.conv_dw", f"{path}.bn{n}", inner, 1, 3)
            layer(f"{path}.conv_pwl" if stage else f"{path}.conv_pw", f"{path}.bn{n + 1}", width, inner, 1)
            now = width
    layer("conv_head", "bn2", 16, now, 1)
    tensors |= {"classifier.weight": torch.randn(5, 16, generator=draw), "classifier.bias": torch.zeros(5)}
    model = str(tmp_path / "mobilenet_16px.safetensors")
    save_file(tensors, model)
    images = torch.randint(0, 256, (160, 16, 16, 3), generator=draw, dtype=torch.uint8)
    seen = open_vision(model)
    with torch.no_grad():
        labels = seen.network(seen.prepare(images)).argmax(1)
    np.savez(tmp_path / "data.npz", images=images.numpy(), labels=labels.numpy())
    out = tmp_path / "out"
    result = cut(model, str(tmp_path / "data.npz"), "60% flops", out=out, format="onnx", samples=60)
    assert result["export"]["logit_error_exact"] < 1e-3 and result["spent"]["flops"] <= result["budget"]["flops"]
    assert any(edit.startswith("channels") for edit in result["edits"].values())
    (made,) = session(out / FILE).run(None, {"images": seen.prepare(images[:4]).numpy()})
    assert made.shape == (4, 5)
