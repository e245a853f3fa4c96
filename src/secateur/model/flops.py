"""What a network computes for one example: multiplications and additions of its matrices, counted as they run."""

from __future__ import annotations

from torch import Tensor, nn

from secateur.model.watch import glance


def flops(network: nn.Module, example: Tensor) -> dict[str, int]:
    """Floating-point operations of every convolution and linear layer on one example, two for each product.

    `example` is a batch of one or more; a layer that runs several times counts as often. What else a network computes
    (normalisations, activations, additions) is a percent or two, and is left out, as is usual.
    """
    found: dict[str, int] = {}

    def count(path: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        places = out[0].numel() // (out.shape[-1] if isinstance(module, nn.Linear) else weight.shape[0])
        found[path] = found.get(path, 0) + 2 * places * weight.numel()

    glance(network, example, (nn.Conv1d, nn.Conv2d, nn.Linear), count)
    return found
