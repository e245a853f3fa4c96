"""Residual networks for small pictures: three stages of blocks of two 3x3 convolutions, shortcuts without parameters.

Deep Residual Learning for Image Recognition (arXiv 1512.03385), section 4.2: ResNet-20, 32, 44, 56 ... with shortcut A,
which takes every second row and column and adds empty channels. Widths are those of the tensors; a convolution that has
a bias and no normalisation behind it is one into which the normalisation was folded.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from secateur.model.builtin import Shapes, shape_of
from secateur.model.pictures import Prepare
from secateur.types import ModelError

NAME = "resnet"
PREPARE = Prepare((3, 32, 32), 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def known(stem: str, shapes: Shapes) -> bool:
    """Named `resnet20...`, or with the tensors of one."""
    named = re.match(r"resnet[-_]?\d+", stem.lower()) is not None
    return named or {"conv1.weight", "layer1.0.conv1.weight", "layer3.0.conv2.weight", "linear.weight"} <= set(shapes)


def build(shapes: Shapes) -> nn.Module:
    """A network in the widths and the depth of these tensors."""
    return ResNet(shapes)


def normalised(shapes: Shapes, conv: str, norm: str, stride: int = 1) -> tuple[nn.Conv2d, nn.Module]:
    """A 3x3 convolution and what follows it: its normalisation, or nothing where that is folded in."""
    rows, cols, *_ = shape_of(shapes, f"{conv}.weight", 4)
    folded = f"{conv}.bias" in shapes
    made = nn.Conv2d(cols, rows, 3, stride, 1, bias=folded)
    return made, nn.Identity() if folded else nn.BatchNorm2d(rows)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, shapes: Shapes, path: str, stride: int, wide: int):
        super().__init__()
        self.conv1, self.bn1 = normalised(shapes, f"{path}.conv1", f"{path}.bn1", stride)
        self.conv2, self.bn2 = normalised(shapes, f"{path}.conv2", f"{path}.bn2")
        more = self.conv2.out_channels - wide
        if more < 0 or (more and stride == 1):
            raise ModelError(f"`{path}.conv2.weight` has {wide + more} outputs beside a shortcut of {wide}")
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            more = self.conv2.out_channels - self.conv1.in_channels  # as they are now: channels may have gone
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, more // 2, more - more // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """Three stages; the first block of the second and third halves height and width."""

    #: where a shortcut adds channels follows from the widths, so that channels of a stage can go (`model/trunk.py`)
    shortcuts_by_width = True

    def __init__(self, shapes: Shapes):
        super().__init__()
        self.conv1, self.bn1 = normalised(shapes, "conv1", "bn1")
        wide = self.conv1.out_channels
        for stage in (1, 2, 3):
            count = len({name.split(".")[1] for name in shapes if name.startswith(f"layer{stage}.")})
            if not count:
                raise ModelError(f"the tensors of `layer{stage}` are missing", "the file is of another architecture")
            blocks = []
            for at in range(count):
                blocks.append(Block(shapes, f"layer{stage}.{at}", 2 if stage > 1 and at == 0 else 1, wide))
                wide = blocks[-1].conv2.out_channels
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        classes, width = shape_of(shapes, "linear.weight", 2)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))  # type: ignore[operator]
        return self.linear(x.mean((2, 3)))
