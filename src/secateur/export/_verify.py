"""Seeing an export load: the real runtime reads the folder afresh, and its logits are held against ours.

Everything is decoded and computed in float32, and our logits are those of the weights as this reader sees them
(`Format.seen`), so only the order of sums may differ: 1e-6 is usual. The limit is 1e-3, because one wrong scale in one
layer shows at 1e-2 and more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from secateur.types import ExportError

#: relative error of the logits (Euclidean norms) above which an export has failed
LIMIT = 1e-3
_OURS = "this is a fault of Secateur or of the installed readers; please report it with their versions"


def verify_in_transformers(folder: Path, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
    """Load the folder in transformers and compare; ExportError if tensors are missing, left over or wrong.

    Without reference logits the model is too large to be loaded whole, and is read and compared in slices.
    """
    if reference_logits is None:
        from secateur.export._slices import verify_in_slices

        return verify_in_slices(folder, tokens)
    error = compare(decoded_in_transformers(folder, tokens), reference_logits, folder)
    return {"verified_in": runtimes(_config(folder)), "logit_error": error}


def decoded_in_transformers(folder: Path, tokens: Tensor) -> Tensor:
    """Logits of the model as transformers reads it; ExportError if it does not, or misses or leaves tensors."""
    try:
        model, info = load(folder)
        with torch.no_grad(), quiet():
            logits = model(tokens).logits
    except Exception as error:  # whatever a reader of somebody else's raises, the file did not load
        who = runtimes(_config(folder))
        raise ExportError(
            f"{who} cannot read the export in {folder}: {type(error).__name__}: {error}", _OURS
        ) from error
    for kind in ("missing", "unexpected", "mismatched"):
        # a buffer of the embedding's module (Gemma's scale) is called missing once it is quantized; it is built anew
        if found := sorted(name for name in map(str, info[f"{kind}_keys"]) if not name.endswith("embed_scale")):
            said = f"calls {len(found)} tensors {kind}, like `{found[0]}`"
            raise ExportError(f"transformers loads {folder} but {said}", _OURS)
    return logits


def compare(logits: Tensor, reference: Tensor, folder: Path, limit: float | None = None) -> float:
    """Relative error of the logits; an ExportError if it is above the limit (`LIMIT`) or not a number."""
    limit = LIMIT if limit is None else limit
    reference = reference.float().reshape(logits.shape)
    error = float((logits - reference).norm() / reference.norm().clamp_min(1e-30))
    if not error <= limit:
        said = f"its logits differ from ours by {error:.2g} of their size (limit {limit})"
        raise ExportError(f"the export in {folder} loads, but {said}", _OURS)
    return error


def load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A model as transformers loads it from the folder alone, decoded to float32, and what it said of the tensors."""
    from transformers import AutoModelForCausalLM

    with quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, trust_remote_code=False
        )
        model, info = loaded
        compressor = getattr(getattr(model, "hf_quantizer", None), "compressor", None)
        if compressor is not None:
            compressor.decompress_model(model)
    return nn.Module.float(model).eval(), info  # transformers' own `float` refuses models that were quantized


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def runtimes(config: dict[str, Any]) -> str:
    """Who has read it, with versions."""
    said = f"transformers {version('transformers')}"
    quantized = config.get("quantization_config", {}).get("quant_method") == "compressed-tensors"
    return f"{said}, compressed-tensors {version('compressed-tensors')}" if quantized else said


@contextmanager
def quiet() -> Iterator[None]:
    """Progress bars and warnings of the readers are not our user's business: what matters is checked."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity(logging.CRITICAL)
    hf.disable_progress_bar()
    noisy = logging.getLogger("compressed_tensors")
    before = noisy.level
    noisy.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        noisy.setLevel(before)
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()


@cache
def zeros_that_reload() -> str | None:
    """How zero points are read: "packed" as the format's makers write them, "bytes" of blocks, or None. Tried once."""
    return next((how for how in ("packed", "bytes") if _zeros_reload(how)), None)


def _zeros_reload(how: str) -> bool:
    from transformers import LlamaConfig, LlamaForCausalLM

    from secateur.export._write import layout_of, write_model
    from secateur.export.compressed_tensors import CompressedTensors
    from secateur.maths.grids import Coded
    from secateur.parts.edits.int import Int
    from secateur.types import Matrix, Plan, Unit

    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=32, num_hidden_layers=1, architectures=["LlamaForCausalLM"], **sizes)
    with torch.random.fork_rng(devices=[]):
        state = LlamaForCausalLM(config).state_dict()
    name = "model.layers.0.self_attn.o_proj.weight"
    unit, edit = Unit("probe", "linear", (Matrix(name, 32, 32, "probe"),)), Int(4, 32, symmetric=False)
    codes, zero = torch.arange(1024).reshape(32, 32) % 16, torch.arange(32)[:, None] % 16
    coded = Coded((codes - zero) * 0.01, {"codes": codes, "zero": zero, "scale": torch.full((32, 1), 0.01)})
    form = CompressedTensors("float32", zeros=how)
    tensors = {k: v for k, v in state.items() if k != name} | form.encode(unit, edit, {name: coded}, "float32")
    with TemporaryDirectory() as place:
        folder = Path(place)
        write_model(folder, {k: layout_of(v) for k, v in tensors.items()}, tensors.__getitem__)
        form.finish(folder, config.to_dict(), Plan({"probe": edit}, {}, 0.0, 0.0, 0.0), [unit])
        try:
            model, info = load(folder)
            with torch.no_grad(), quiet():
                model(torch.arange(4)[None])
        except Exception:  # refused, in one of the many ways in which readers refuse
            return False
    return not info["missing_keys"] and torch.allclose(model.state_dict()[name], coded.values)
