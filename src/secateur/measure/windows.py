"""A text as windows to be scored: which tokens count, and how many bytes of text they spell.

    disjoint (the default)   | x x x x | x x x x |      x is scored, . is read as context only
    sliding, --stride 2      | . . x x |
                                 | . . x x |
                                     | . . x x |

Disjoint windows score every token but the first of each window, which nothing predicts; the tokens behind it have
little context, so the loss comes out higher than the model's best. Sliding windows score the last `stride` tokens of
each, all of them with at least `length - stride` tokens before them, at `length / stride` times the work; the text's
first tokens are then context only. What does not fill a window at the end of the text is left out either way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.measure.models import Model
from secateur.model.text import whole
from secateur.types import DataError, ModelError

log = logging.getLogger("secateur")

_USUAL = 512  # tokens in a window where nobody says and the model takes as many
_PIECE = 2_000_000  # characters tokenized at once: more takes gigabytes


@dataclass(frozen=True)
class Encoded:
    """A text as one tokenizer sees it: ids, and where in the text each token begins (None where it does not say)."""

    text: str
    ids: Tensor
    starts: Tensor | None


@dataclass(frozen=True)
class Windows:
    """`tokens` is windows x length; in every window, those from place `first` on are scored."""

    tokens: Tensor
    first: int
    bytes: int | None  # of text that the scored tokens spell

    @property
    def each(self) -> int:
        """How many tokens of a window are scored."""
        return self.tokens.shape[1] - self.first

    @property
    def scored(self) -> int:
        return len(self.tokens) * self.each


def behind(windows: Windows, prompt: float) -> Windows:
    """The same windows, scored only behind this share of each: what comes right behind it is predicted by its last
    token, and does not count."""
    length = windows.tokens.shape[1]
    read = min(max(1, round(prompt * length)), length - 2)
    if read < 1:
        raise DataError(f"windows of {length} tokens have nothing behind a prompt", "use --seq-len 3 or more")
    return Windows(windows.tokens, read + 1, None)


def read_text(data: str | Path) -> str:
    """The text; the log says so if it is too long to be taken as a whole."""
    if str(data).endswith(".npz"):
        raise DataError(f"{data} holds arrays, and a language model reads text", "give text; image models take arrays")
    text, size = whole(data)
    if len(text) < size:
        log.warning("%s has %d characters; pieces of it with %d in all are measured", data, size, len(text))
    return text


def encode(tokenizer: Any, text: str) -> Encoded:
    """The text as one run of tokens, without special ones."""
    ids, starts, at = [], [], 0
    told = bool(getattr(tokenizer, "is_fast", False))
    for part in _parts(text):
        found = tokenizer(part, add_special_tokens=False, return_offsets_mapping=told, verbose=False)
        ids.append(torch.tensor(found["input_ids"], dtype=torch.long))
        if told:
            begins = [begin for begin, _ in found["offset_mapping"]]
            starts.append(torch.tensor(begins, dtype=torch.long) + at)
        at += len(part)
    return Encoded(text, torch.cat(ids), torch.cat(starts) if told else None)


def _parts(text: str) -> list[str]:
    """The text, cut at ends of lines if it is very long."""
    parts, at = [], 0
    while len(text) - at > 2 * _PIECE:
        end = text.find("\n", at + _PIECE) + 1 or len(text)
        parts.append(text[at:end])
        at = end
    return [*parts, text[at:]] if at < len(text) else parts


def length_for(models: Sequence[Model], seq_len: int | None) -> int:
    """Tokens in a window, the same for all models: as asked, or the shortest context, at most 512."""
    limits = {model.name: model.context for model in models if model.context is not None}
    shortest = min(limits, key=lambda name: limits[name]) if limits else ""
    if seq_len is None:
        return min(limits.get(shortest, _USUAL), _USUAL)
    if seq_len < 2:
        raise DataError(f"windows of {seq_len} tokens predict nothing", "use --seq-len 2 or more")
    if limits and seq_len > limits[shortest]:
        raise DataError(
            f"windows of {seq_len} tokens are longer than the context of {shortest}, which is {limits[shortest]}",
            f"--seq-len {limits[shortest]}",
        )
    return seq_len


def cut(
    encoded: Encoded,
    length: int,
    samples: int | None = None,
    stride: int | None = None,
    seed: int = 0,
    prefix: Sequence[int] = (),
    name: str = "data",
) -> Windows:
    """All windows of a text, or `samples` of them, spread evenly; every one begins with the tokens `prefix`."""
    own, n = length - len(prefix), len(encoded.ids)
    stride = own if stride is None else stride
    if not 1 <= stride <= own:
        raise DataError(f"a stride of {stride} does not fit windows of {length} tokens", f"use --stride 1 to {own}")
    if n < own:
        shorter = f", or shorter windows: --seq-len {n}" if n > 1 else ""
        raise DataError(f"{name} gives only {n} tokens, not one window of {length}", "give more text" + shorter)
    starts = _some(torch.arange(0, n - own + 1, stride), samples, seed)
    tokens = encoded.ids[starts[:, None] + torch.arange(own)]
    before = torch.tensor(prefix, dtype=torch.long).expand(len(starts), -1)
    first = length - min(stride, length - 1)
    return Windows(torch.cat([before, tokens], 1), first, _bytes(encoded, starts + first - len(prefix), starts + own))


def _some(starts: Tensor, samples: int | None, seed: int) -> Tensor:
    """Every so many windows, beginning with a random one of the first so many."""
    if samples is None or samples >= len(starts):
        return starts
    if samples < 1:
        raise DataError(f"asked for {samples} samples", "ask for at least 1")
    loose = torch.rand(1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return starts[((torch.arange(samples) + loose) * len(starts) / samples).long().clamp(max=len(starts) - 1)]


def _bytes(encoded: Encoded, begin: Tensor, end: Tensor) -> int | None:
    """Of the text from the first scored token of each window to where the token behind its last one begins."""
    if encoded.starts is None:
        return None
    at = torch.cat([encoded.starts, torch.tensor([len(encoded.text)])])
    pairs = zip(at[begin].tolist(), at[end].tolist(), strict=True)
    return sum(len(encoded.text[a:b].encode()) for a, b in pairs)


@dataclass
class Texts:
    """One text for several models: tokenized once by each different tokenizer, and cut alike."""

    text: str
    name: str
    length: int
    samples: int | None = None
    stride: int | None = None
    bos: bool = False
    seed: int = 0
    _kept: dict[bytes, Encoded] = field(default_factory=dict, init=False, repr=False)

    @property
    def step(self) -> int:
        """Tokens from the beginning of one window to that of the next, were all of them taken."""
        return self.length - self.bos if self.stride is None else self.stride

    def windows(self, model: Model) -> Windows:
        """The windows for a model; ModelError if its tokenizer gives tokens that the network does not know."""
        encoded = self._encoded(model)
        most = int(encoded.ids.max()) if len(encoded.ids) else 0
        if most >= model.vocabulary:
            raise ModelError(
                f"the tokenizer in {model.folder} gives token {most}, but the model has only {model.vocabulary}",
                "tokenizer and weights are of different models",
            )
        prefix = [] if not self.bos else [_bos(model)]
        return cut(encoded, self.length, self.samples, self.stride, self.seed, prefix, self.name)

    def _encoded(self, model: Model) -> Encoded:
        files = [model.folder / name for name in ("tokenizer.json", "tokenizer_config.json")]
        key = b"\0".join(file.read_bytes() for file in files if file.exists())
        if not files[0].exists():
            return encode(model.tokenizer, self.text)
        if key not in self._kept:
            self._kept[key] = encode(model.tokenizer, self.text)
        return self._kept[key]


def _bos(model: Model) -> int:
    found = model.tokenizer.bos_token_id
    if found is None:
        raise DataError(f"the tokenizer of {model.name} has no token that begins a text", "leave out --bos")
    return int(found)
