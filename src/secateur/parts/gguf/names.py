"""What llama.cpp calls the tensors of each architecture, and what it does to them.

Names come from the tables of the `gguf` package, by the name of the parameter in transformers. Beside names there are
three habits: Llama's rows of q and k lie pair by pair (its rotation turns neighbours, transformers' turns halves),
Gemma's norms are stored with the one added that the network adds, and GPT-2's matrices lie outputs x inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.types import ModelError


@dataclass(frozen=True)
class Arch:
    """One architecture of llama.cpp. `acts`: the activations that it computes; `norms` is added to norms on disk;
    `renormed`: whether the weights of the chosen experts are made to add up to one, None where it has no experts."""

    name: str
    acts: tuple[str, ...] = ("silu",)
    turned: bool = False
    norms: float = 0.0
    sliding: bool = False  # its attention windows are kept; elsewhere the context is cut to the window
    renormed: bool | None = None


_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu")
#: by transformers' `model_type`
ARCHS = {
    "llama": Arch("llama", turned=True),
    "mistral": Arch("llama", turned=True),
    "qwen2": Arch("qwen2"),
    "qwen3": Arch("qwen3"),
    "phi3": Arch("phi3"),
    "gemma": Arch("gemma", _GELU, norms=1.0),
    "gemma2": Arch("gemma2", _GELU, norms=1.0, sliding=True),
    "gemma3_text": Arch("gemma3", _GELU, norms=1.0, sliding=True),
    "gpt2": Arch("gpt2", _GELU[:2]),
    "mixtral": Arch("llama", turned=True, renormed=True),
    "qwen2_moe": Arch("qwen2moe", renormed=False),
    "qwen3_moe": Arch("qwen3moe", renormed=True),
}
#: the only architecture whose blocks may differ in width and heads: Llama's in everything else
DECI = Arch("deci", turned=True)


def arch_of(model_type: str) -> Arch:
    """The architecture, or a ModelError that names those there are."""
    if model_type not in ARCHS:
        raise ModelError(
            f"Secateur does not know how llama.cpp names the tensors of `{model_type}`",
            f"it knows {', '.join(ARCHS)}; write another format, --format packed for example",
        )
    return ARCHS[model_type]


def ggml_names(arch: Arch, parameters: Iterable[str], blocks: int) -> dict[str, str]:
    """Parameter -> name in the file, for those that have one: `model.layers.0.mlp.up_proj.weight` -> `blk.0...`."""
    gguf: Any = package()
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch.name)
    table = gguf.get_tensor_name_map(kind, blocks)
    named = {parameter: table.get_name(parameter, try_suffixes=(".weight", ".bias")) for parameter in parameters}
    return {parameter: name for parameter, name in named.items() if name}


def expert_names(parameter: str) -> tuple[str, ...]:
    """Names in the file for a stack of experts, each for as many rows of every expert; empty for all other parameters.

    >>> expert_names("model.layers.0.mlp.experts.gate_up_proj")
    ('blk.0.ffn_gate_exps.weight', 'blk.0.ffn_up_exps.weight')
    """
    found = re.fullmatch(r"model\.layers\.(\d+)\.mlp\.experts\.(gate_up|down)_proj", parameter)
    return tuple(f"blk.{found[1]}.ffn_{side}_exps.weight" for side in found[2].split("_")) if found else ()


def is_router(name: str) -> bool:
    """Whether a name in the file is that of what chooses experts, or weighs the one that all tokens meet."""
    return ".ffn_gate_inp" in name


def package() -> Any:
    """The `gguf` package, or a ModelError that says how to get it."""
    try:
        import gguf
    except ImportError as error:
        raise ModelError(f"GGUF files need the `gguf` package ({error})", "pip install 'secateur[gguf]'") from error
    return gguf


def is_norm(name: str) -> bool:
    """Whether a name in the file is that of a norm's weight."""
    return name.endswith("norm.weight")


def heads_of(name: str, shape: tuple[int, ...], head: int) -> int:
    """Into how many heads the rows of a tensor fall whose rows lie pair by pair; 0 for every other tensor."""
    found = re.fullmatch(r"blk\.\d+\.attn_(q|k)\.(weight|bias)", name)
    return shape[0] // head if found else 0


def rows_by_block(shapes: Mapping[str, tuple[int, ...]], name: str) -> list[int]:
    """Rows of the matrix of this name in every block that has one, first block to last."""
    found = {int(m[1]): shapes[key][0] for key in shapes if (m := re.search(rf"\.(\d+)\.\w+\.{name}\.weight$", key))}
    return [found[block] for block in sorted(found)]


def turned(x: Tensor, heads: int) -> Tensor:
    """Rows of every head from halves to pairs: transformers' order to llama.cpp's. Rows of packed blocks too."""
    return x[order(x.shape[0], heads)]


def turned_back(x: Tensor, heads: int) -> Tensor:
    return x[torch.argsort(order(x.shape[0], heads))]


def order(rows: int, heads: int) -> Tensor:
    """Which of transformers' rows each row of the file is.

    >>> order(8, 2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    return torch.arange(rows).view(heads, 2, rows // heads // 2).transpose(1, 2).reshape(-1)


def parameters_of(sources: Mapping[str, tuple[Any, ...]]) -> dict[str, str]:
    """Stored tensor -> the parameter that it fills whole, from an anatomy's sources; of twins, the first."""
    found: dict[str, str] = {}
    for parameter, pieces in sources.items():
        if len(pieces) == 1 and pieces[0].index is None:
            found.setdefault(pieces[0].tensor, parameter)
    return found
