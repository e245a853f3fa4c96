"""A network in other widths: its layers made anew in the shapes of given tensors, where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur.model.families import family, recount


def resized(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """The same network, changed in place: every layer in the widths of its tensors in `shapes`, with empty weights.

    A forward pass that counts channels itself (a reshape to a fixed width) will not run; running it shows.
    """
    for path, module in network.named_modules():
        start = f"{path}." if path else ""
        for name, parameter in module.named_parameters(recurse=False):
            shape = shapes.get(start + name)
            if shape is not None and shape != tuple(parameter.shape):
                empty = torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
                setattr(module, name, nn.Parameter(empty, parameter.requires_grad))
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
    elif isinstance(getattr(module, "num_experts", None), int):
        stack = getattr(module, "down_proj", getattr(module, "weight", None))  # of experts, or the rows of their router
        module.__dict__["num_experts"] = module.num_experts if stack is None else len(stack)
    elif type(module).__name__ == "Conv1D":  # GPT-2's, stored inputs x outputs
        module.__dict__["nx"], module.__dict__["nf"] = module.weight.shape


@contextmanager
def fewer_experts(network: nn.Module, experts: str, router: str, n: int) -> Iterator[None]:
    """Inside, a loaded layer has room for `n` experts: its stacks and its router are those of the first so many, to be
    written over. Afterwards it is as it was."""
    held: list[tuple[Any, dict[str, Any]]] = []
    for path in (experts, router):
        module: Any = network.get_submodule(path)
        held.append((module, dict(module._parameters)))
        for name, parameter in module._parameters.items():
            module._parameters[name] = nn.Parameter(parameter.detach()[:n].clone(), parameter.requires_grad)
        told(module)
    try:
        yield
    finally:
        for module, parameters in held:
            module._parameters.update(parameters)
            told(module)


class Nothing(nn.Module):
    """Stands where an attention was, and adds nothing; what it gives is a pair, as of those in transformers."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return torch.zeros_like(args[0] if args else kwargs["hidden_states"]), None


class Zeros(nn.Module):
    """Stands where a linear layer was, and gives zeros of its width."""

    def __init__(self, rows: int):
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.rows)


def reshaped(network: nn.Module, told: Mapping[str, Any]) -> nn.Module:
    """A language model without the channels, heads and parts that a cut has taken away (`parts/left.py` says which),
    changed in place; weights empty."""
    resized(network, {name: tuple(shape) for name, shape in told["shapes"].items()})
    for name, part in told["gone"].items():
        for tensor in part["also"]:  # norms and biases; what lies inside an attention goes with it
            _swap(network, tensor.rpartition(".")[0], nn.Identity())
        if "att" in name.rpartition(".")[2]:
            _swap(network, name, Nothing())
        else:
            for path in part["makers"]:
                _swap(network, path, nn.Identity())
            _swap(network, part["mixer"], Zeros(part["rows"]))
    kind = str(network.config.model_type)  # type: ignore[union-attr]
    mixers = {part.mixer.rpartition(".")[0] for part in family(kind).parts if part.by == "heads"}
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in mixers and not isinstance(module, Nothing):
            recount(kind, module)
    return network


def _swap(network: nn.Module, path: str, other: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    try:
        owner = network.get_submodule(parent)
    except AttributeError:  # stored without the first part of its name, as old GPT-2s are
        owner = network.get_submodule(f"{network.base_model_prefix}.{parent}")
    setattr(owner, name, other)
