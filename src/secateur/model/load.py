"""The network without its weights, and its weights block by block.

The skeleton has every parameter on the meta device (it takes no memory) and every buffer for real: rotary frequencies
and embedding scales are computed when a module is built and are not on disk, so they must never be lost.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from secateur.model.checkpoint import Checkpoint
from secateur.model.names import Piece
from secateur.model.resize import reshaped
from secateur.types import ModelError

#: where config.json says what a cut has taken away
SMALLER = "secateur_shapes"
_MMAP_THRESHOLD = -3  # as malloc.h numbers it

if TYPE_CHECKING:
    from secateur.model.anatomy import Anatomy


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Inside, every parameter that a module registers goes to the meta device; buffers are left alone."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    def to_meta(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(to_meta)  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        handle.remove()


def skeleton(
    checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> nn.Module:
    """The network that the config describes, in eval mode, parameters on meta, buffers real and on `device`.

    Code that a checkpoint brings along is never run.
    """
    import transformers

    config = config_of(checkpoint)
    names = [name for name in checkpoint.config.get("architectures") or () if hasattr(transformers, name)]
    with parameters_on_meta(), torch.random.fork_rng(devices=[]):  # building draws numbers for buffers and meta tensors
        known = type(config) in transformers.AutoModelForCausalLM._model_mapping
        if not known and not names:
            raise _unknown(checkpoint)
        try:
            if known:
                network = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
            else:
                network = getattr(transformers, names[0])._from_config(config, dtype=dtype)
        except Exception as error:  # a size of zero, heads that do not divide the width, a name of no activation
            raise _unreadable(checkpoint, error) from error
    if told := checkpoint.config.get(SMALLER):
        reshaped(network, told)
    for module in network.modules():
        _own_buffers_to(module, device)
    return network.eval()


def _own_buffers_to(module: nn.Module, device: torch.device | str) -> None:
    for name, buffer in module.named_buffers(recurse=False):
        module._buffers[name] = buffer.to(device)


def config_of(checkpoint: Checkpoint):
    """The configuration as transformers has it, with its defaults."""
    from transformers import AutoConfig

    try:
        if not (checkpoint.folder / "config.json").exists():  # the model says it itself
            return AutoConfig.for_model(**checkpoint.config)
        return AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # every architecture checks its own fields in its own way
        raise _unreadable(checkpoint, error) from error


def _unreadable(checkpoint: Checkpoint, error: Exception) -> ModelError:
    """A configuration that makes no network: of an architecture that nobody knows, or with fields that are wrong."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = checkpoint.config.get("model_type")
    if kind not in CONFIG_MAPPING:
        return _unknown(checkpoint)
    said = " ".join(str(error).split()) or type(error).__name__
    return ModelError(
        f"the configuration of {checkpoint.folder} makes no `{kind}`: {said}", "download or export config.json again"
    )


def _unknown(checkpoint: Checkpoint) -> ModelError:
    kind = checkpoint.config.get("model_type") or (checkpoint.config.get("architectures") or ["nothing"])[0]
    own = " and brings its own code, which Secateur never runs" if "auto_map" in checkpoint.config else ""
    return ModelError(
        f"the installed transformers does not know the architecture `{kind}` of {checkpoint.folder}{own}",
        "upgrade transformers, or give `package.module:function` that returns the network",
    )


def assemble(checkpoint: Checkpoint, pieces: tuple[Piece, ...], shape: tuple[int, ...]) -> Tensor:
    """One parameter from the stored tensors that it is made of."""
    if pieces[0].index is None:
        return checkpoint.read(pieces[0].tensor)
    first = checkpoint.read(pieces[0].tensor)
    out = first.new_empty(shape)
    for piece in pieces:
        out[piece.index, piece.start : piece.stop] = checkpoint.read(piece.tensor)
    return out


def load_block(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    path: str,
    module: nn.Module,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    *,
    recurse: bool = True,
    made: dict[tuple[Piece, ...], Tensor] | None = None,
) -> nn.Module:
    """Fill one module of the skeleton (`module` is the network's submodule `path`) from disk, in place.

    Any module will do: a block, the embedding, the final norm, `""` for the whole network; without `recurse` it gets
    only the parameters that are its own. Parameters tied within the module stay tied; pass one dict as `made` to
    several calls and they are tied between them too. `dtype=None` leaves every tensor as stored.
    """
    made = {} if made is None else made
    state: dict[str, Tensor] = {}
    for name, empty in module.state_dict(keep_vars=True).items():
        if "." in name and not recurse:
            continue
        pieces = anatomy.sources.get(f"{path}.{name}" if path else name)
        if pieces is None:  # a buffer that transformers rebuilds: it is real already
            continue
        if pieces not in made:
            value = assemble(checkpoint, pieces, tuple(empty.shape))
            cast = dtype if value.is_floating_point() and dtype is not None else value.dtype
            value = value.to(device=device, dtype=cast)
            made[pieces] = nn.Parameter(value, empty.requires_grad) if isinstance(empty, nn.Parameter) else value
        state[name] = made[pieces]
    module.load_state_dict(state, strict=False, assign=True)
    for owner in module.modules() if recurse else (module,):
        _own_buffers_to(owner, device)
    return module


def unload(module: nn.Module, *, recurse: bool = True) -> nn.Module:
    """Back to meta: give the memory of the parameters back. Buffers stay; they are small and not all on disk."""
    shared: dict[int, nn.Parameter] = {}
    for owner in module.modules() if recurse else (module,):
        for name, parameter in list(owner.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in shared:
                empty = torch.empty_like(parameter, device="meta")
                shared[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
            owner._parameters[name] = shared[id(parameter)]
    return module


def pages_of_their_own(least: int = 24 << 20) -> None:
    """Let the C library hold tensors of so many bytes in pages of their own, which go back as soon as they are freed.

    glibc raises that size to 32 MB by itself, and what is below lies in its heap, between smaller things that stay:
    statistics of 2816 columns (31.7 MB) then pile up to hundreds of megabytes that nobody uses. Not lower than it must
    be: fresh pages are cleared by the system at every use, and weights of 11 MB are used all the time while rounding.
    """
    if os.name == "posix" and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, least)


def trim() -> None:
    """Give freed memory back to the system, where the C library keeps it.

    glibc serves tensors below 32 MB from a heap of its own, whose holes the next block's tensors do not fit: without
    this, a walk through 24 blocks of 67 MB holds 490 MB at its end that nobody uses, and more with every block.
    """
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if give_back is not None:
        give_back(0)


def collect() -> None:
    """Let go of what only points at itself, tensors and all, and give its memory back.

    Modules and graphs do, and Python's collector counts objects, not bytes: left to itself it let a walk through 20
    blocks of 51 MB hold 120 MB more than one through 8, and read models of a few blocks pile up to a gigabyte.
    """
    gc.collect()
    trim()
