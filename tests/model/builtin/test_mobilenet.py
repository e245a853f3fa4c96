"""MobileNetV2 by the names of timm and of torchvision: recognised, built in any width, coupled as it runs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from secateur.model import builtin
from secateur.model.builtin import mobilenet
from secateur.model.coupled import apart, coupled
from secateur.model.trunk import trunks
from secateur.types import ModelError

WIDTHS = (4, 4, 6, 6, 6, 8, 8)


def tensors_of(names="timm", blocks=(1, 2, 1, 1, 1, 1, 1), wide=2, widths=WIDTHS):
    """Random weights of a small one."""
    draw, found = torch.Generator().manual_seed(0), {}

    def layer(conv, norm, rows, cols, kernel):
        found[f"{conv}.weight"] = torch.randn(rows, cols, kernel, kernel, generator=draw) / (cols * kernel**2) ** 0.5
        for part, around in (("weight", 1.0), ("bias", 0.2), ("running_mean", 0.0), ("running_var", 1.0)):
            found[f"{norm}.{part}"] = (torch.randn(rows, generator=draw) * 0.1 + around).abs()

    timm, at, now = names == "timm", 0, 5
    layer(*(("conv_stem", "bn1") if timm else ("features.0.0", "features.0.1")), now, 3, 3)
    for stage, (width, n) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(n):
            at += 1
            inner = now * (wide if stage else 1)
            path = f"blocks.{stage}.{block}" if timm else f"features.{at}.conv"
            three = ("conv_pw", "conv_dw", "conv_pwl") if stage else ("conv_dw", "conv_pw")
            for i, name in enumerate(three):
                rows = width if i == len(three) - 1 else inner
                cols, kernel = (1, 3) if name == "conv_dw" else (now if i == 0 else inner, 1)
                last = i == len(three) - 1
                theirs = (f"{path}.{i}", f"{path}.{i + 1}") if last else (f"{path}.{i}.0", f"{path}.{i}.1")
                layer(*((f"{path}.{name}", f"{path}.bn{i + 1}") if timm else theirs), rows, cols, kernel)
            now = width
    layer(*(("conv_head", "bn2") if timm else (f"features.{at + 1}.0", f"features.{at + 1}.1")), 12, now, 1)
    last = "classifier" if timm else "classifier.1"
    return found | {f"{last}.weight": torch.randn(3, 12, generator=draw), f"{last}.bias": torch.zeros(3)}


def opened(tensors, stem="net"):
    made = builtin.recognise(stem, {name: tuple(t.shape) for name, t in tensors.items()})
    assert made is mobilenet
    return builtin.filled(made.build({name: tuple(t.shape) for name, t in tensors.items()}), tensors, "it")


def test_both_names_are_one_network():
    timm, other = (tensors_of(names, mobilenet.BLOCKS) for names in ("timm", "torchvision"))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert [tuple(t.shape) for t in timm.values()] == [tuple(t.shape) for t in other.values()]
    assert torch.equal(opened(timm)(x), opened(other)(x))


def test_a_block_by_hand():
    tensors = tensors_of()
    network, x = opened(tensors), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    seen = {}

    def see(name):
        hook = lambda module, args, out: seen.update({name: (args[0], out)})  # noqa: E731
        network.get_submodule(name).register_forward_hook(hook)

    see("blocks.1.1.conv_pw")
    see("blocks.1.1.bn3")
    network.get_submodule("blocks.2.0.conv_pw").register_forward_hook(lambda m, args, out: seen.update(next=args[0]))
    network(x)
    given, made = seen["blocks.1.1.conv_pw"][0], seen["blocks.1.1.bn3"][1]
    assert torch.equal(seen["next"], given + made)

    def norm(y, path):
        w, b, m, v = (tensors[f"blocks.1.1.{path}.{p}"] for p in ("weight", "bias", "running_mean", "running_var"))
        return F.batch_norm(y, m, v, w, b)

    y = F.relu6(norm(F.conv2d(given, tensors["blocks.1.1.conv_pw.weight"]), "bn1"))
    y = F.relu6(norm(F.conv2d(y, tensors["blocks.1.1.conv_dw.weight"], padding=1, groups=len(y[0])), "bn2"))
    assert torch.allclose(norm(F.conv2d(y, tensors["blocks.1.1.conv_pwl.weight"]), "bn3"), made, atol=1e-6)


def test_channels_are_coupled_as_they_run():
    network = opened(tensors_of())
    groups = apart(coupled(network)[0], {})
    found = {group.first: group for group in groups}
    assert found["blocks.1.1.conv_pw"].between == ("blocks.1.1.bn1", "blocks.1.1.conv_dw", "blocks.1.1.bn2")
    assert found["blocks.1.1.conv_pw"].last == "blocks.1.1.conv_pwl" and found["conv_head"].last == "classifier"
    stage = next(trunk for trunk in trunks(network, groups)[0] if trunk.name == "blocks.1.0.conv_pwl")
    assert stage.makers == ("blocks.1.0.conv_pwl", "blocks.1.1.conv_pwl")
    assert stage.takers == ("blocks.1.1.conv_pw", "blocks.2.0.conv_pw")


def test_what_its_pictures_are_and_what_is_not_one():
    shapes = {name: tuple(t.shape) for name, t in tensors_of().items()}
    assert mobilenet.prepare("mobilenet_32px", shapes).shape == (3, 32, 32)
    assert mobilenet.prepare("mobilenetv2_100", shapes).shape == (3, 224, 224)
    with pytest.raises(ModelError, match="8 blocks between"):
        opened(tensors_of("torchvision"))
