"""A network in other widths: its layers made anew in the shapes of given tensors, where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def resized(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """The same network, changed in place: every layer in the widths of its tensors in `shapes`, with empty weights.

    A forward pass that counts channels itself (a reshape to a fixed width) will not run; running it shows.
    """
    for path, module in network.named_modules():
        start = f"{path}." if path else ""
        for name, parameter in module.named_parameters(recurse=False):
            shape = shapes.get(start + name)
            if shape is not None and shape != tuple(parameter.shape):
                setattr(module, name, nn.Parameter(torch.zeros(shape, dtype=parameter.dtype)))
        for name, buffer in module.named_buffers(recurse=False):
            shape = shapes.get(start + name)
            if shape is not None and shape != tuple(buffer.shape):
                module._buffers[name] = torch.zeros(shape, dtype=buffer.dtype)
        told(module)
    return network


def told(module: Any) -> None:
    """Let a layer's own numbers (`out_channels`, `num_features` ...) say what its tensors are."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        rows, cols = module.weight.shape[:2]
        if module.groups > 1:  # only depthwise layers change their width: a group is one channel
            module.groups = module.groups if cols > 1 else rows
        module.out_channels, module.in_channels = rows, cols * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
        module.num_features = len(module.running_mean)
