"""Vision transformers: pictures in patches, one class token, blocks of attention and MLP behind their normalisations.

An Image is Worth 16x16 Words (arXiv 2010.11929); DeiT (arXiv 2012.12877). Tensors are named as timm names them, so its
checkpoints are read without it. Widths, depth, patches and picture size are those of the tensors; a head has 64
channels, as in all of these networks (narrower than 64, there is one head). Files named `deit...` take pictures as
ImageNet's mean and deviation say, others from -1 to 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.model.builtin import Shapes, shape_of
from secateur.model.pictures import Prepare
from secateur.types import ModelError

NAME = "vit"
HEAD = 64
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def known(stem: str, shapes: Shapes) -> bool:
    """With the tensors of one."""
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= set(shapes)


def prepare(stem: str, shapes: Shapes) -> Prepare:
    """What its pictures are, from the number of patches and their size."""
    _, channels, patch, _ = shape_of(shapes, "patch_embed.proj.weight", 4)
    side = math.isqrt(shape_of(shapes, "pos_embed", 3)[1] - 1) * patch
    mean, deviation = _IMAGENET if stem.lower().startswith("deit") else ((0.5,) * channels, (0.5,) * channels)
    return Prepare((channels, side, side), 1 / 255, mean, deviation)


def build(shapes: Shapes) -> nn.Module:
    """A network in the widths and the depth of these tensors."""
    return ViT(shapes)


def _linear(shapes: Shapes, path: str) -> nn.Linear:
    rows, cols = shape_of(shapes, f"{path}.weight", 2)
    return nn.Linear(cols, rows, bias=f"{path}.bias" in shapes)


class Attention(nn.Module):
    """All patches look at all."""

    def __init__(self, shapes: Shapes, path: str):
        super().__init__()
        self.qkv, self.proj = _linear(shapes, f"{path}.qkv"), _linear(shapes, f"{path}.proj")
        self.heads = max(1, self.proj.in_features // HEAD)
        if self.qkv.out_features != 3 * self.proj.in_features or self.proj.in_features % self.heads:
            said = f"`{path}.qkv.weight` makes {self.qkv.out_features} numbers for heads of {self.proj.in_features}"
            raise ModelError(said, "the file is of another architecture")

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, shapes: Shapes, path: str):
        super().__init__()
        self.fc1, self.fc2 = _linear(shapes, f"{path}.fc1"), _linear(shapes, f"{path}.fc2")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP beside the residual stream."""

    def __init__(self, shapes: Shapes, path: str, width: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, 1e-6), Attention(shapes, f"{path}.attn")
        self.norm2, self.mlp = nn.LayerNorm(width, 1e-6), Mlp(shapes, f"{path}.mlp")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    """A picture as a row of patches."""

    def __init__(self, shapes: Shapes, path: str):
        super().__init__()
        rows, cols, patch, _ = shape_of(shapes, f"{path}.proj.weight", 4)
        self.proj = nn.Conv2d(cols, rows, patch, patch, bias=f"{path}.proj.bias" in shapes)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """The class token's last state is what is classified."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        width = shape_of(shapes, "patch_embed.proj.weight", 4)[0]
        self.patch_embed = Patches(shapes, "patch_embed")
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(shape_of(shapes, "pos_embed", 3)))
        count = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
        self.blocks = nn.Sequential(*(Block(shapes, f"blocks.{at}", width) for at in range(count)))
        self.norm = nn.LayerNorm(width, 1e-6)
        self.head = _linear(shapes, "head")

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])
