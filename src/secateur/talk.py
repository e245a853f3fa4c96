"""A few words from a finished file, in the runtime that it was made for: so that a person sees that it speaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.measure import llamacpp
from secateur.parts.gguf.read import is_gguf, open_gguf
from secateur.types import DataError, ModelError, SecateurError


@dataclass(frozen=True)
class Speaker:
    """A model and who runs it."""

    runtime: str
    pieces: Iterator[str]


def speak(model: str, prompt: str, tokens: int = 64, device: str | None = None) -> Speaker:
    """What a model says after a prompt, always the most likely token, piece by piece as it comes.

    GGUF files run in llama.cpp, packed ones with our own reader, other folders in transformers.
    """
    if not prompt:
        raise DataError("the prompt is empty", 'say something: --prompt "Once upon a time"')
    if is_gguf(model):
        if llamacpp.folder() is None:
            raise llamacpp.RuntimeMissingError("GGUF files run in llama.cpp, which is not installed here", llamacpp.GET)
        return Speaker(str(llamacpp.version()), llamacpp.speak(open_gguf(model).file, prompt, tokens))
    other = next((name for name in ("onnx", "pt2") if list(Path(model).glob(f"*.{name}"))), None)
    if other and not (Path(model) / "model.safetensors").exists():
        raise ModelError(f"{model} is an .{other} file, which does not speak from here", "run it in its own runtime")
    return _in_torch(model, prompt, tokens, device)


def _in_torch(model: str, prompt: str, n: int, device: str | None) -> Speaker:
    from importlib.metadata import version

    from secateur.export._verify import load
    from secateur.model.stream import device_of
    from secateur.parts.reading import network, open_reading, tokenizer_of

    reading, at = open_reading(model), device_of(device)
    packed = dict(reading.config.get("quantization_config") or {}).get("quant_method") == "secateur"
    runtime = f"secateur {_version()}" if packed else f"transformers {version('transformers')}"
    net: Any = (network(model) if packed else load(reading.folder)[0]).to(at)
    return Speaker(runtime, _pieces(net, tokenizer_of(reading), prompt, n, at))


@torch.no_grad()
def _pieces(net: Any, tokenizer: Any, prompt: str, n: int, device: torch.device) -> Iterator[str]:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(device)
    context = getattr(net.config, "max_position_embeddings", None)
    if context and ids.shape[1] >= context:
        raise SecateurError(f"the prompt has {ids.shape[1]} tokens, and the model takes {context}", "shorten it")
    said: list[int] = []
    told, past = "", None
    for _ in range(n if not context else min(n, context - ids.shape[1])):
        out = net(ids, past_key_values=past, use_cache=True)
        past, token = out.past_key_values, int(out.logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        said.append(token)
        text = tokenizer.decode(said)
        if not text.endswith("\ufffd"):  # half a character: wait for the rest
            yield text[len(told) :]
            told = text
        ids = torch.tensor([[token]], device=device)
    yield tokenizer.decode(said)[len(told) :]


def _version() -> str:
    from secateur import __version__

    return __version__
