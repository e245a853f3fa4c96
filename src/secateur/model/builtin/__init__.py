"""Small architectures that we can build from the names and shapes of their tensors: one file each, found by its path.

A file has `NAME` (what config.json calls it), `PREPARE` (what its examples become before the network sees them; or
`prepare(name, shapes)`, where that hangs on the file),
`known(name, shapes)` (whether a file of that name with such tensors is one of its networks) and `build(shapes)`, which
makes the network, in the widths that the tensors have: a network with fewer channels is built like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secateur.model.pictures import Prepare
from secateur.types import ModelError

#: every stored tensor -> its shape
Shapes = Mapping[str, tuple[int, ...]]
_COUNTER = "num_batches_tracked"


def names() -> list[str]:
    """The architectures there are, as config.json calls them."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem[0] != "_")


def find(name: str) -> Any:
    """The file of one architecture."""
    if name not in names():
        raise ModelError(f"there is no built-in architecture `{name}`", f"there are {', '.join(names())}")
    return import_module(f"{__name__}.{name}")


def recognise(stem: str, shapes: Shapes) -> Any:
    """The architecture that a file of this name (without its ending) with these tensors is of."""
    for name in names():
        if find(name).known(stem, shapes):
            return find(name)
    first = next(iter(sorted(shapes)), "nothing")
    raise ModelError(
        f"{stem}.safetensors is of no architecture that is built in (its first tensor is `{first}`)",
        f"there are {', '.join(names())}; for others give `package.module:function` that returns the network",
    )


def prepared(made: Any, stem: str, shapes: Shapes) -> Prepare:
    """What the examples of a network in a file of this name become before it sees them."""
    return made.prepare(stem, shapes) if hasattr(made, "prepare") else made.PREPARE


def filled(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> nn.Module:
    """The network with these tensors in float32, in eval mode. Strict: every tensor must be there, fit, and be used."""
    wanted = without_counters(network).state_dict()
    given = {name: value for name, value in tensors.items() if not name.endswith(_COUNTER)}
    hint = "the file is of another architecture, or was saved incompletely"
    if missing := [name for name in wanted if name not in given]:
        raise ModelError(f"{what} lacks `{missing[0]}`{_more(missing)}", hint)
    if unused := [name for name in given if name not in wanted]:
        raise ModelError(f"{what} holds `{unused[0]}`{_more(unused)}, which this architecture does not use", hint)
    for name, value in wanted.items():
        if tuple(given[name].shape) != tuple(value.shape):
            shapes = f"{list(given[name].shape)}, but this architecture needs {list(value.shape)}"
            raise ModelError(f"`{name}` in {what} is of shape {shapes}", hint)
    # torch adds counters to what it loads, and would then call them unexpected; what is strict stands above
    network.load_state_dict({name: value.float() for name, value in given.items()}, strict=False)
    return network.eval()


def without_counters(network: nn.Module) -> nn.Module:
    """The network, its normalisations no longer counting batches: that number is of no use to a finished network, and
    files do not hold it. torch makes it anew where it is missing."""
    for module in network.modules():
        if _COUNTER in module._buffers:
            module._buffers[_COUNTER] = None
    return network


def shape_of(shapes: Shapes, name: str, dims: int) -> tuple[int, ...]:
    """The shape of one tensor, which must be there and have so many axes."""
    if name not in shapes:
        raise ModelError(f"the tensor `{name}` is missing", "the file is of another architecture, or incomplete")
    if len(shapes[name]) != dims:
        raise ModelError(f"`{name}` has {len(shapes[name])} axes and not {dims}", "the file is of another architecture")
    return shapes[name]


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
