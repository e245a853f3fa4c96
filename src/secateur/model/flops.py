"""What a network computes for one example: multiplications and additions of its matrices, counted as they run."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def flops(network: nn.Module, example: Tensor) -> dict[str, int]:
    """Floating-point operations of every convolution and linear layer on one example, two for each product.

    `example` is a batch of one or more; a layer that runs several times counts as often. What else a network computes
    (normalisations, activations, additions) is a percent or two, and is left out, as is usual.
    """
    found: dict[str, int] = {}
    handles = []

    def count(path: str):
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            weight: Tensor = module.weight  # type: ignore[assignment]
            places = (
                out[0].numel() // weight.shape[0]
                if isinstance(module, nn.Conv1d | nn.Conv2d)
                else (out[0].numel() // out.shape[-1])
            )
            found[path] = found.get(path, 0) + 2 * places * weight.numel()

        return hook

    for path, module in network.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(count(path)))
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    return found
