"""Image models opened, whole, in memory: a file of a built-in architecture, a folder that we wrote, or a function.

    resnet20.safetensors            recognised by its name or its tensors (`model/builtin/`)
    out/                            config.json says which architecture and which preprocessing
    package.module:function         returns an `nn.Module`; its attribute `preprocessing` says what it takes
    package.module:function@out     the same network with the tensors of a folder or a .safetensors file

A folder never says which code to run: a network from a function is read back through the function.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.model import builtin
from secateur.model.checkpoint import Checkpoint, read_header
from secateur.model.held import Held
from secateur.model.pictures import Prepare
from secateur.model.resize import resized
from secateur.parts.reading import open_reading
from secateur.types import ModelError

#: how config.json names our architectures: `secateur_resnet`
PREFIX = "secateur_"
_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)(?:@(.+))?")
_HINT = "write it like `package.module:function`, a function without arguments that returns an nn.Module"


@dataclass(frozen=True)
class Vision:
    """One image model. `held` are its tensors as stored (decoded, if cut); `stored` counts bytes on disk."""

    name: str
    held: Held
    network: nn.Module
    prepare: Prepare
    files: tuple[Path, ...]
    stored: int  # bytes of all tensors on disk, without headers

    @property
    def bytes(self) -> int:
        """Of the files that hold its tensors, headers included; the tensors' own where no file does."""
        return sum(file.stat().st_size for file in self.files) or self.stored

    @property
    def weights(self) -> int:
        """How many parameters the uncut network had."""
        return int(self.held.config["original_parameters"])

    @property
    def bits_per_weight(self) -> float:
        """Everything stored over the weights of the uncut network."""
        return 8 * self.stored / self.weights

    def example(self, n: int = 2) -> Tensor:
        """Inputs of the right shape, all zeros: to trace and to count with."""
        return torch.zeros(n, *self.prepare.shape)

    @torch.no_grad()
    def classes(self) -> int:
        """How many it chooses among."""
        out = self.network(self.example())
        if not isinstance(out, Tensor) or out.dim() != 2:
            said = f"a tensor of shape {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(f"{self.name} returns {said}", "a classifier returns logits, examples x classes")
        return out.shape[1]


def is_vision(name: str | Path) -> bool:
    """Whether this names an image model, and not a language model in Hugging Face layout."""
    path = Path(name)
    if path.is_dir():
        return str(_config(path).get("model_type", "")).startswith(PREFIX)
    return str(name).endswith(".safetensors") or _FUNCTION.fullmatch(str(name)) is not None


def open_vision(name: str | Path, cut: bool = True) -> Vision:
    """Open an image model; `cut=False` refuses one whose weights are coded already."""
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, cut)
    if found := _FUNCTION.fullmatch(str(name)):
        return _function(str(name), *found.groups())
    return _file(path)


def _file(path: Path) -> Vision:
    if not path.exists():
        raise ModelError(f"there is no file {path}", "give a .safetensors file of a built-in architecture, or a folder")
    entries = read_header(path)
    held = Checkpoint(path, {}, entries)
    state = {name: held.read(name) for name in entries if not name.endswith("num_batches_tracked")}
    shapes = {name: entry.shape for name, entry in entries.items()}
    made = builtin.recognise(path.stem, shapes)
    network = builtin.filled(made.build(shapes), state, str(path))
    prepare = builtin.prepared(made, path.stem, shapes)
    config = {
        "model_type": PREFIX + made.NAME,
        "architectures": [path.stem],
        "dtype": "float32",
        "preprocessing": prepare.told(),
        "original_parameters": sum(value.numel() for value in state.values()),
    }
    return Vision(str(path), Held(path, config, state), network, prepare, (path,), held.bytes)


def _folder(path: Path, cut: bool) -> Vision:
    reading = open_reading(path)
    config = dict(reading.config)
    if not cut and "quantization_config" in config:
        hint = f"turn it into plain weights first: `secateur export {path} --format safetensors -o plain`"
        raise ModelError(f"{path} is already quantized", hint)
    state = {name: reading.read(name) for name in reading.tensors}
    kind = str(config["model_type"]).removeprefix(PREFIX)
    if kind == "function":
        where = config.get("function", "package.module:function")
        raise ModelError(f"{path} is a network that a function makes", f"give `{where}@{path}`")
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    network = builtin.filled(builtin.find(kind).build(shapes), state, str(path))
    config.setdefault("original_parameters", sum(value.numel() for value in state.values()))
    files = tuple(sorted({entry.file for entry in reading.checkpoint.tensors.values()}))
    prepare = Prepare.of(config.get("preprocessing", {}))
    return Vision(str(path), Held(path, config, state), network, prepare, files, reading.bytes)


def _function(name: str, module: str, function: str, tensors: str | None) -> Vision:
    network = builtin.without_counters(copy.deepcopy(_made(module, function))).eval()
    told = getattr(network, "preprocessing", None)
    if isinstance(told, Mapping):
        prepare = Prepare.of(told)
    elif isinstance(told, Prepare):
        prepare = told
    else:
        raise ModelError(
            f"the network of {module}:{function} does not say what it takes",
            'set `network.preprocessing = {"shape": (3, 32, 32), "scale": 1 / 255, "mean": (...), "std": (...)}`',
        )
    weights = sum(value.numel() for value in network.state_dict().values())
    files: tuple[Path, ...] = ()
    stored = 0
    if tensors is not None:
        state, files, stored = _tensors(Path(tensors).expanduser())
        network = builtin.filled(resized(network, {k: tuple(v.shape) for k, v in state.items()}), state, tensors)
    state = {key: value.detach().clone().contiguous() for key, value in network.state_dict().items()}
    config = {
        "model_type": PREFIX + "function",
        "function": f"{module}:{function}",
        "architectures": [type(network).__name__],
        "dtype": "float32",
        "preprocessing": prepare.told(),
        "original_parameters": weights,
    }
    held = Held(Path(name), config, state)
    return Vision(name, held, network.float(), prepare, files, stored or held.bytes)


def _made(module: str, function: str) -> nn.Module:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        made = getattr(importlib.import_module(module), function)()
    except ModuleNotFoundError as error:
        raise ModelError(f"there is no module `{error.name}` to be imported", _HINT) from None
    except AttributeError as error:
        raise ModelError(f"`{module}:{function}` cannot be called: {error}", _HINT) from None
    except Exception as error:  # the user's own code: whatever it raises, it gave no network
        raise ModelError(f"`{module}:{function}` failed: {type(error).__name__}: {error}", _HINT) from error
    finally:
        sys.path.remove(here)
    if not isinstance(made, nn.Module):
        raise ModelError(f"`{module}:{function}` returns {type(made).__name__}", _HINT)
    return made


def _tensors(path: Path) -> tuple[dict[str, Tensor], tuple[Path, ...], int]:
    """Tensors of a folder that we wrote, or of one file; their files, and bytes of their data."""
    if path.is_dir():
        reading = open_reading(path)
        files = tuple(sorted({entry.file for entry in reading.checkpoint.tensors.values()}))
        return {name: reading.read(name) for name in reading.tensors}, files, reading.bytes
    if not path.exists():
        raise ModelError(f"there is no {path}", "give a folder or a .safetensors file behind the `@`")
    held = Checkpoint(path, {}, read_header(path))
    return {name: held.read(name) for name in held.tensors}, (path,), held.bytes


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
