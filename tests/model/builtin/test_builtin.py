"""Built-in image networks: recognised by name or tensors, built in any width, strict about what fills them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from secateur.model import builtin
from secateur.model.builtin import dscnn, resnet
from secateur.parts.vision import is_vision, open_vision
from secateur.types import ModelError


def shapes_of(tensors):
    return {name: tuple(value.shape) for name, value in tensors.items()}


@pytest.fixture
def tensors():
    """A ResNet-8 of odd widths inside its blocks."""
    widths = {1: (16, 5), 2: (32, 7), 3: (64, 11)}
    shapes = {"conv1.weight": (16, 3, 3, 3), **norm("bn1", 16), "linear.weight": (10, 64), "linear.bias": (10,)}
    before = 16
    for stage, (out, inner) in widths.items():
        path = f"layer{stage}.0"
        shapes |= {f"{path}.conv1.weight": (inner, before, 3, 3), f"{path}.conv2.weight": (out, inner, 3, 3)}
        shapes |= norm(f"{path}.bn1", inner) | norm(f"{path}.bn2", out)
        before = out
    draw = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=draw) * 0.1 + 0.01 for name, shape in shapes.items()}


def norm(path, n):
    return {f"{path}.{name}": (n,) for name in ("weight", "bias", "running_mean", "running_var")}


def test_widths_are_those_of_the_tensors(tensors):
    network = builtin.filled(resnet.build(shapes_of(tensors)), tensors, "it")
    assert network.layer2[0].conv1.out_channels == 7 and len(network.layer1) == 1
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())


def test_a_block_by_hand(tensors):
    """The second stage: half the positions, eight empty channels in front and behind."""
    network = builtin.filled(resnet.build(shapes_of(tensors)), tensors, "it")
    block, x = network.layer2[0], torch.randn(1, 16, 4, 4)
    y = block.bn1(F.conv2d(x, tensors["layer2.0.conv1.weight"], stride=2, padding=1)).relu()
    y = block.bn2(F.conv2d(y, tensors["layer2.0.conv2.weight"], padding=1))
    y[:, 8:24] += x[:, :, ::2, ::2]
    assert torch.allclose(block(x), y.relu(), atol=1e-6)


def test_a_bias_stands_for_a_folded_normalisation(tensors):
    folded = {name: value for name, value in tensors.items() if ".bn1." not in name and not name.startswith("bn1")}
    folded |= {f"layer{s}.0.conv1.bias": torch.zeros(len(tensors[f"layer{s}.0.conv1.weight"])) for s in (1, 2, 3)}
    folded["conv1.bias"] = torch.zeros(16)
    network = builtin.filled(resnet.build(shapes_of(folded)), folded, "it")
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bn1.weight": None}, "lacks `bn1.weight`"),
        ({"more": torch.ones(1)}, "holds `more`, which this architecture does not use"),
        ({"bn1.bias": torch.ones(3)}, r"`bn1.bias` in it is of shape \[3\], but this architecture needs \[16\]"),
    ],
)
def test_filling_is_strict(tensors, change, words):
    given = {name: value for name, value in {**tensors, **change}.items() if value is not None}
    with pytest.raises(ModelError, match=words):
        builtin.filled(resnet.build(shapes_of(given)), given, "it")


@pytest.mark.parametrize(
    ("gone", "words"),
    [("layer3.0.conv2.weight", "`layer3.0.conv2.weight` is missing"), ("linear.weight", "`linear.weight` is missing")],
)
def test_what_is_needed_to_build_is_named(tensors, gone, words):
    del tensors[gone]
    with pytest.raises(ModelError, match=words):
        resnet.build(shapes_of(tensors))


def test_files_are_recognised(tensors, tmp_path):
    save_file(tensors, tmp_path / "mine.safetensors")
    seen = open_vision(tmp_path / "mine.safetensors")
    assert seen.classes() == 10 and seen.held.config["model_type"] == "secateur_resnet"
    assert seen.bytes == (tmp_path / "mine.safetensors").stat().st_size
    save_file({"w": torch.ones(1)}, tmp_path / "strange.safetensors")
    with pytest.raises(ModelError, match=r"of no architecture that is built in \(its first tensor is `w`"):
        open_vision(tmp_path / "strange.safetensors")
    with pytest.raises(ModelError, match="there is no file"):
        open_vision(tmp_path / "gone.safetensors")
    file = tmp_path / "mine.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match="is truncated"):
        open_vision(file)


def test_what_is_an_image_model(tmp_path):
    assert is_vision("resnet20.safetensors") and is_vision("package.module:function")
    assert not is_vision("org/name") and not is_vision(tmp_path)


def test_networks_from_functions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_nets.py").write_text(
        "from torch import nn\n"
        "def good():\n"
        "    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))\n"
        "    net.preprocessing = {'shape': (1, 4, 4), 'scale': 1.0}\n"
        "    return net\n"
        "def mute(): return nn.Linear(2, 2)\n"
        "def wrong(): return 3\n"
        "def broken(): raise ValueError('no weights here')\n"
    )
    seen = open_vision("mine_nets:good")
    assert seen.classes() == 3 and "1.running_var" in seen.held.state
    for name, words in {
        "mine_nets:mute": "does not say what it takes",
        "mine_nets:wrong": "returns int",
        "mine_nets:broken": "failed: ValueError: no weights here",
        "mine_nets:gone": "cannot be called",
        "nothing_here:good": "no module `nothing_here`",
    }.items():
        with pytest.raises(ModelError, match=words):
            open_vision(name)


@pytest.mark.parametrize(
    ("model", "data", "accuracy"),
    [("cifar_resnet/resnet20_jpeg", "cifar10/test_2000", 0.895), ("kws_dscnn/model", "kws/test_500", 0.915)],
)
def test_real_networks_are_as_accurate_as_their_makers_say(shared, model, data, accuracy):
    """Of the first 200 examples; all of them give 88.25% and 92.2%, as the README beside each says."""
    seen = open_vision(shared / "models" / f"{model}.safetensors")
    with np.load(shared / "data" / f"{data}.npz") as held:
        x, labels = (held[name][:200] for name in (held.files[0], "labels"))
    with torch.no_grad():
        right = seen.network(seen.prepare(torch.from_numpy(x))).argmax(1).numpy() == labels
    assert right.mean() == pytest.approx(accuracy, abs=0.001)


def test_depthwise_widths_follow_the_tensors(shared):
    tensors = load_file(shared / "models/kws_dscnn/model.safetensors")
    narrow = {}
    for name, value in tensors.items():
        if name.startswith(("block2.depthwise", "block1.pointwise")):
            value = value[:50]
        narrow[name] = value[:, :50] if name == "block2.pointwise.weight" else value
    network = builtin.filled(dscnn.build(shapes_of(narrow)), {k: v.contiguous() for k, v in narrow.items()}, "it")
    assert network.block2.depthwise.groups == 50
    assert network(torch.zeros(1, 1, 49, 10)).shape == (1, 12)
