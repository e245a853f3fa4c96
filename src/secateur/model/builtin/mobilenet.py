"""MobileNetV2: blocks that widen, filter every channel by itself, and narrow again beside a shortcut.

MobileNetV2: Inverted Residuals and Linear Bottlenecks (arXiv 1801.04381), table 2. Tensors are named as timm
(`blocks.1.0.conv_pw`) or torchvision (`features.2.conv.0.0`) name them, so that checkpoints of both are read without
either; widths are those of the tensors. Strides and shortcuts go by a block's place, for once channels have gone, equal
widths say nothing. Of timm's names any number of blocks a stage will do; torchvision's do not say where stages begin,
so that there are its seventeen blocks or none. Pictures are of 224 x 224 places, or as a file's name says: `_32px`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from secateur.model.builtin import Shapes, shape_of
from secateur.model.pictures import Prepare
from secateur.types import ModelError

NAME = "mobilenet"
#: strides of the seven stages, and how many blocks each has in the paper
STRIDES, BLOCKS = (1, 2, 2, 2, 1, 2, 1), (1, 2, 3, 4, 3, 3, 1)


def known(stem: str, shapes: Shapes) -> bool:
    """With the tensors of one, by either's names."""
    timm = {"conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.1.0.conv_pwl.weight", "classifier.weight"}
    torchvision = {"features.0.0.weight", "features.1.conv.0.0.weight", "features.2.conv.2.weight"}
    return timm <= set(shapes) or torchvision <= set(shapes)


def prepare(stem: str, shapes: Shapes) -> Prepare:
    """Pictures as ImageNet's mean and deviation say."""
    found = re.search(r"(\d+)px", stem.lower())
    side = int(found[1]) if found else 224
    return Prepare((3, side, side), 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def build(shapes: Shapes) -> nn.Module:
    """A network in the widths of these tensors."""
    return MobileNetV2(shapes)


@dataclass(frozen=True)
class Part:
    """Layers one after the other, each the paths of a convolution and of its normalisation; what follows all but the
    last, and the last where `active`, is cut off at 0 and 6. `beside` a shortcut or not."""

    layers: tuple[tuple[str, str], ...]
    stride: int = 1
    beside: bool = False
    active: bool = False


class MobileNetV2(nn.Module):
    """The stem, the blocks, the head, the mean over all places, and the classifier."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        timm = "conv_stem.weight" in shapes
        self.parts = tuple(_as_timm(shapes) if timm else _as_torchvision(shapes))
        self.last = "classifier" if timm else "classifier.1"
        for part in self.parts:
            strided = _strided(shapes, part)
            for conv, norm in part.layers:
                made = _convolution(shapes, conv, part.stride if conv == strided else 1)
                _hang(self, conv, made)
                _hang(self, norm, nn.Identity() if made.bias is not None else nn.BatchNorm2d(made.out_channels))
        classes, width = shape_of(shapes, f"{self.last}.weight", 2)
        _hang(self, self.last, nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            y = x
            for at, (conv, norm) in enumerate(part.layers):
                y = self.get_submodule(norm)(self.get_submodule(conv)(y))
                y = F.relu6(y) if part.active or at < len(part.layers) - 1 else y
            x = x + y if part.beside else y
        return self.get_submodule(self.last)(x.mean((2, 3)))


def _as_timm(shapes: Shapes) -> Iterator[Part]:
    yield Part((("conv_stem", "bn1"),), 2, active=True)
    for stage, stride in enumerate(STRIDES):
        blocks = {int(name.split(".")[2]) for name in shapes if name.startswith(f"blocks.{stage}.")}
        for block in sorted(blocks):
            path = f"blocks.{stage}.{block}"
            three = f"{path}.conv_pw.weight" in shapes and f"{path}.conv_pwl.weight" in shapes
            names = ("conv_pw", "conv_dw", "conv_pwl") if three else ("conv_dw", "conv_pw")
            layers = tuple((f"{path}.{name}", f"{path}.bn{at}") for at, name in enumerate(names, 1))
            yield Part(layers, 1 if block else stride, block > 0)
    yield Part((("conv_head", "bn2"),), active=True)


def _as_torchvision(shapes: Shapes) -> Iterator[Part]:
    last = max(int(name.split(".")[1]) for name in shapes if re.match(r"features\.\d+\.", name))
    if last != sum(BLOCKS) + 1:
        said = f"there are {last - 1} blocks between `features.0` and the last, and not {sum(BLOCKS)}"
        raise ModelError(said, "name tensors as timm does: `blocks.<stage>.<block>`, which says where stages begin")
    yield Part((("features.0.0", "features.0.1"),), 2, active=True)
    at = 0
    for stride, blocks in zip(STRIDES, BLOCKS, strict=True):
        for block in range(blocks):
            at += 1
            path, wide = f"features.{at}.conv", f"features.{at}.conv.3.weight" in shapes
            wide = wide or f"features.{at}.conv.1.0.weight" in shapes
            n = 2 if wide else 1
            layers = [(f"{path}.{i}.0", f"{path}.{i}.1") for i in range(n)]
            yield Part((*layers, (f"{path}.{n}", f"{path}.{n + 1}")), 1 if block else stride, block > 0)
    yield Part(((f"features.{last}.0", f"features.{last}.1"),), active=True)


def _strided(shapes: Shapes, part: Part) -> str:
    """Which of a part's convolutions takes its stride: the one that looks around."""
    around = (conv for conv, _ in part.layers if shape_of(shapes, f"{conv}.weight", 4)[2] > 1)
    return next(around, part.layers[0][0])


def _convolution(shapes: Shapes, path: str, stride: int) -> nn.Conv2d:
    """One that has one input channel a filter, and looks around, is depthwise."""
    rows, cols, high, wide = shape_of(shapes, f"{path}.weight", 4)
    deep = cols == 1 and high > 1
    around, bias, groups = (high // 2, wide // 2), f"{path}.bias" in shapes, rows if deep else 1
    return nn.Conv2d(rows if deep else cols, rows, (high, wide), stride, around, groups=groups, bias=bias)


def _hang(root: nn.Module, path: str, made: nn.Module) -> None:
    """Put a module in its place, with modules around it that do nothing but hold names."""
    *around, name = path.split(".")
    for one in around:
        if one not in root._modules:
            root.add_module(one, nn.Module())
        root = root.get_submodule(one)
    root.add_module(name, made)
