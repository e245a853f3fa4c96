"""Seeing a GGUF file run: in llama.cpp where it is installed, else in transformers, else it is said that nobody has.

llama.cpp rounds activations before it multiplies: to 8 bits beside quantized weights, to 16 beside 16-bit ones. So its
logits differ from ours by more than the order of sums. Measured on `lm-small`, relative to the size of the logits:
2e-4 for a file in F16, 0.011 to 0.013 for stock Q4_K_M and Q2_K and for our own mixes, 0.033 for random networks; the
scales of one matrix of one block off by half are above the limit (tests/export/test_gguf.py). transformers decodes
exactly.

A token that stands between two experts may be sent to the other by that rounding, and is then off by ten times as much
as its neighbours. So of a model with experts the three quarters of the tokens are judged that differ least.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.export._verify import LIMIT, quiet
from secateur.measure import llamacpp
from secateur.parts.gguf.names import package
from secateur.parts.gguf.read import logits as decoded
from secateur.types import ExportError

#: relative error of the logits above which an export has failed, by the widest rounding of activations in the file
LIMITS = {"8 bits": 0.05, "bfloat16": 0.01, "float16": 2e-3}
#: of the tokens of a model with experts, the share that is judged
JUDGED = 0.75
_OURS = "this is a fault of Secateur or of the installed llama.cpp; please report it with their versions"


def verify(file: Path, tokenizer: Any, reference: Tensor | None, tokens: Tensor) -> dict[str, Any]:
    """`verified_in`, `logit_error`, `logit_limit`, and whether the file's tokenizer says what the model's own does."""
    if llamacpp.folder() is not None:
        return _in_llamacpp(file, tokenizer, reference, tokens)
    if reference is not None:
        return _in_transformers(file, reference, tokens)
    said = f"not verified: the model is large and llama.cpp is not here ({llamacpp.GET})"
    return {"verified_in": said, "logit_error": None}


def limit_of(file: Path) -> float:
    """What the rounding of activations explains, for the tensors of this file."""
    kinds = {tensor.tensor_type.name for tensor in package().GGUFReader(str(file)).tensors}
    wide = {"F32", "F16", "BF16"}
    return LIMITS["8 bits" if kinds - wide else "bfloat16" if "BF16" in kinds else "float16"]


def _in_llamacpp(file: Path, tokenizer: Any, reference: Tensor | None, tokens: Tensor) -> dict[str, Any]:
    told = package().GGUFReader(str(file))
    arch = told.fields["general.architecture"].contents()
    tokens = tokens[:, : told.fields[f"{arch}.context_length"].contents()]
    logits = torch.from_numpy(llamacpp.logits(file, tokens.numpy()))
    reference = decoded(file, tokens) if reference is None else reference
    reference = reference.reshape(len(tokens), -1, logits.shape[-1])[:, : tokens.shape[1]]
    limit = limit_of(file)
    chosen = f"{arch}.expert_count" in told.fields and limit == LIMITS["8 bits"]
    error = _error(logits, reference, JUDGED if chosen else 1.0)
    if not error <= limit:
        said = f"its logits differ from ours by {error:.2g} of their size (limit {limit})"
        raise ExportError(f"llama.cpp loads {file.name}, but {said}", _OURS)
    return {
        "verified_in": llamacpp.version(),
        "logit_error": error,
        "logit_limit": limit,
        "tokenizer": _tokenizer(file, tokenizer, tokens),
    }


def _in_transformers(file: Path, reference: Tensor, tokens: Tensor) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    try:
        with torch.no_grad(), quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
            logits = model.eval()(tokens).logits
    except Exception as error:  # it knows fewer architectures than llama.cpp, and says so in many ways
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        said = f"not verified: llama.cpp is not here ({llamacpp.GET}), and transformers does not read the file ({why})"
        return {"verified_in": said, "logit_error": None}
    error = _error(logits, reference.reshape(logits.shape))
    if not error <= LIMIT:
        said = f"its logits differ from ours by {error:.2g} of their size (limit {LIMIT})"
        raise ExportError(f"transformers loads {file.name}, but {said}", _OURS)
    return {"verified_in": f"transformers {version('transformers')}", "logit_error": error, "logit_limit": LIMIT}


def _error(logits: Tensor, reference: Tensor, share: float = 1.0) -> float:
    """Relative to the size of the logits, of the share of the tokens that differ least."""
    reference = reference.float()
    apart, size = (x.flatten(0, -2).norm(dim=-1) for x in (logits - reference, reference))
    least = (apart / size.clamp_min(1e-30)).argsort()[: max(1, round(share * len(apart)))]
    return float(apart[least].norm() / size[least].norm().clamp_min(1e-30))


def _tokenizer(file: Path, ours: Any, tokens: Tensor) -> str:
    """Whether llama.cpp makes the same tokens of a text; where it does not, how many differ."""
    if ours is None:
        return "the file has none"
    text = ours.decode(tokens[0].tolist())
    expected, found = ours(text, add_special_tokens=False)["input_ids"], llamacpp.tokenize(file, text)
    if expected == found:
        return "agrees"
    same = sum(a == b for a, b in zip(expected, found, strict=False))
    return f"differs from the model's own: {same} of {len(expected)} tokens of a sample are the same"
