"""A keyword spotter of depthwise separable convolutions: MLPerf Tiny's reference network.

Hello Edge: Keyword Spotting on Microcontrollers (arXiv 1711.07128). Input 1 x 49 x 10 (time x cepstral coefficients);
one 10x4 convolution of stride 2, then blocks of a depthwise 3x3 and a pointwise 1x1, each with a normalisation.
"""

from __future__ import annotations

import re
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from secateur.model.builtin import Shapes, shape_of
from secateur.model.pictures import Prepare
from secateur.types import ModelError

NAME = "dscnn"
PREPARE = Prepare((1, 49, 10), 1.0, (83.0,), (1 / 0.5847029,))
EPSILON = 1e-3


def known(stem: str, shapes: Shapes) -> bool:
    """With the tensors of one; or named so."""
    named = re.match(r"(kws|ds[-_]?cnn)", stem.lower()) is not None
    return named or {"conv.weight", "block1.depthwise.weight", "block1.pointwise.weight"} <= set(shapes)


def build(shapes: Shapes) -> nn.Module:
    """A network in the widths and the depth of these tensors."""
    return DsCnn(shapes)


class DsCnn(nn.Module):
    """Every convolution has a bias; its normalisation, where it is not folded in, is called `<convolution>_bn`."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        self.conv = _convolution(shapes, "conv", 2, 0)
        self.conv_bn = _norm(shapes, "conv")
        self.depth = len({name.split(".")[0] for name in shapes if re.match(r"block\d+\.", name)})
        for at in range(1, self.depth + 1):
            self.add_module(f"block{at}", Separable(shapes, f"block{at}"))
        classes, width = shape_of(shapes, "linear.weight", 2)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv_bn(self.conv(F.pad(x, (1, 1, 4, 5)))))
        for at in range(1, self.depth + 1):
            x = getattr(self, f"block{at}")(x)
        return self.linear(x[:, :, :24, :5].mean((2, 3)))  # the reference pools 24 x 5 of the 25 x 5 positions


class Separable(nn.Module):
    """A filter of its own for every channel, then a mixture of the channels."""

    def __init__(self, shapes: Shapes, path: str):
        super().__init__()
        self.depthwise = _convolution(shapes, f"{path}.depthwise", 1, 1)
        self.depthwise_bn = _norm(shapes, f"{path}.depthwise")
        self.pointwise = _convolution(shapes, f"{path}.pointwise", 1, 0)
        self.pointwise_bn = _norm(shapes, f"{path}.pointwise")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise_bn(self.depthwise(x)))
        return F.relu(self.pointwise_bn(self.pointwise(x)))


def _convolution(shapes: Shapes, path: str, stride: int, padding: int) -> nn.Conv2d:
    rows, cols, high, wide = shape_of(shapes, f"{path}.weight", 4)
    deep = path.endswith(".depthwise")
    if deep and cols != 1:
        raise ModelError(f"`{path}.weight` mixes {cols} channels", "a depthwise convolution has filters of one channel")
    how: Any = {"groups": rows if deep else 1, "bias": f"{path}.bias" in shapes}
    return nn.Conv2d(rows if deep else cols, rows, (high, wide), stride, padding, **how)


def _norm(shapes: Shapes, path: str) -> nn.Module:
    if f"{path}_bn.weight" not in shapes:
        return nn.Identity()
    return nn.BatchNorm2d(shapes[f"{path}_bn.weight"][0], eps=EPSILON)
