"""Models as they lie on disk, opened to be measured: cut or not, by us or by others. Only headers are in memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.model.anatomy import skeleton
from secateur.model.checkpoint import Checkpoint, open_checkpoint
from secateur.parts.gguf.read import is_gguf
from secateur.parts.reading import ForeignError, Reading, network, open_reading, tokenizer_of
from secateur.types import ModelError

_ROUNDS = "its runtime rounds activations too; here only the weights are rounded"


@dataclass(frozen=True)
class Model:
    """One model and what its headers say. `reading` decodes its tensors; None where only transformers can."""

    name: str  # as the user calls it
    stored: Checkpoint
    reading: Reading | None
    tokenizer: Any
    vocabulary: int  # width of its logits
    context: int | None  # the longest window it takes
    weights: int  # of the uncut network
    notes: list[str] = field(default_factory=list)  # what the reader of its row must know

    @property
    def folder(self) -> Path:
        return self.stored.folder

    @property
    def bytes(self) -> int:
        """Of the files that hold its tensors, headers included."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def bits_per_weight(self) -> float:
        """Everything stored (scales, zeros, indices too) over the weights of the uncut network."""
        return 8 * self.stored.bytes / self.weights

    @property
    def files(self) -> set[Path]:
        """Where its tensors lie."""
        return {entry.file.resolve() for entry in self.stored.tensors.values()}

    def network(self) -> nn.Module:
        """All of it in memory, in float32."""
        return network(self.name) if self.reading is not None else _by_transformers(self.stored)


def open_model(name: str) -> Model:
    """A folder in Hugging Face layout, plain, packed or compressed, or a model on the hub."""
    if name.endswith((".safetensors", ".npz", ".onnx")) and Path(name).exists():
        raise ModelError(
            f"{name} is one file, not a language model",
            "give the folder that holds config.json and the weights",
        )
    try:
        reading = open_reading(name)
        stored = reading.checkpoint
    except ForeignError:
        reading, stored = None, open_checkpoint(name, quantized=True)
    empty: Any = skeleton(reading or stored)  # type: ignore[arg-type]  # a Reading is all that it asks of a Checkpoint
    config = empty.config.get_text_config()
    if getattr(config, "vocab_size", None) is None:
        raise ModelError(
            f"{name} is a {type(empty).__name__}, which reads no text",
            "language models are measured, and image models from a .safetensors file or `package.module:function`",
        )
    head = empty.get_output_embeddings()
    tokenizer = tokenizer_of(stored)
    return Model(
        name,
        stored,
        reading,
        tokenizer,
        int(config.vocab_size if head is None else head.weight.shape[0]),
        _context(config, tokenizer),
        sum(entry.size for entry in reading.tensors.values())
        if reading
        else sum(p.numel() for p in empty.parameters()),
        [_ROUNDS] if is_gguf(name) else _notes(stored.config),
    )


def _context(config: Any, tokenizer: Any) -> int | None:
    most = getattr(config, "max_position_embeddings", None) or getattr(tokenizer, "model_max_length", None)
    return most if isinstance(most, int) and most < 10**7 else None  # 1e30 means that nobody set it


def _notes(config: Mapping[str, Any]) -> list[str]:
    about = config.get("quantization_config") or {}
    groups = about.get("config_groups", {}).values()
    if any(group.get("input_activations") for group in groups):
        return [_ROUNDS]
    return []


def _by_transformers(stored: Checkpoint) -> nn.Module:
    """What transformers makes of a folder, in float32; ModelError where it cannot or leaves tensors aside."""
    from transformers import AutoModelForCausalLM

    how = dict(stored.config.get("quantization_config") or {}).get("quant_method")
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                stored.folder,
                config=_decoding(stored.folder),
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except Exception as error:  # readers refuse in many ways, and most say which package they lack
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "install what it asks for, or measure the original model"
        raise ModelError(
            f"{stored.folder} is quantized by {how}, and transformers cannot read it: {said}", hint
        ) from error
    model, info = loaded
    for kind in ("missing", "unexpected", "mismatched"):
        if found := sorted(map(str, info[f"{kind}_keys"])):
            raise ModelError(
                f"transformers reads {stored.folder} ({how}) but calls {len(found)} tensors {kind}, like `{found[0]}`",
                "measure the original model, or export it again",
            )
    return nn.Module.float(model).eval()  # transformers' own `float` refuses models that were quantized


def _decoding(folder: Any) -> Any:
    """The folder's config, FP8 weights to be decoded: where a GPU multiplies in FP8, inputs would be rounded too."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    about = getattr(config, "quantization_config", None)
    if isinstance(about, dict) and about.get("quant_method") == "fp8":
        about["dequantize"] = True
    return config


@contextmanager
def quiet() -> Iterator[None]:
    """Bars and warnings of other libraries' readers stay off the screen: what matters is checked."""
    hf: Any = importlib.import_module("transformers.utils.logging")
    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity_error()
    hf.disable_progress_bar()
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()
