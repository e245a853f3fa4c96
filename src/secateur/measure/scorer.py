"""One scorer for everybody: the reference reads the windows once, then any model is held against it, window by window.

Ours and files of others go through the same lines, on the same windows, in float32 whatever the files hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from secateur.measure.compare import Comparison
from secateur.measure.models import Model, open_model
from secateur.measure.pictures import compared, logits_of
from secateur.measure.rows import Desk, Read
from secateur.measure.windows import Texts, Windows, behind, length_for, read_text
from secateur.model.pictures import Pictures, read_pictures
from secateur.model.stream import device_of
from secateur.parts.vision import is_vision, open_vision
from secateur.types import ModelError

#: what is known of each window, bytes of the files, bits per weight, and what a reader of its row must know
Scored = tuple[Comparison, int, float, str | None]
#: `score(model, samples)`: the samples are the same every time
Scorer = Callable[[str, Any], Scored]
Tell = Callable[[str, int, int], None]


@contextmanager
def scorer(
    reference: str, *, seed: int = 0, device: str | None = None, tell: Tell | None = None, prompt: float = 0.0
) -> Iterator[Scorer]:
    """Hold models against a reference on samples: windows of tokens or pictures at hand, or the name of a file; of
    windows only what lies behind the first `prompt` of each is scored."""
    say: Tell = tell or (lambda *_: None)
    if is_vision(reference):
        yield _of_pictures(reference, device, say)
        return
    with TemporaryDirectory(prefix="secateur-") as place:
        yield _of_text(reference, Desk(device, Path(place), say), seed, prompt)


def scored(reference: str, samples: Any, seed: int = 0, prompt: float = 0.0) -> Windows:
    """The windows that a scorer of this model holds others against it on."""
    opened = open_model(reference)
    return _windows(opened, samples, seed, prompt)(opened)


def _of_text(reference: str, desk: Desk, seed: int, prompt: float) -> Scorer:
    opened = open_model(reference)

    @cache
    def standard(samples: Any) -> tuple[Callable[[Model], Windows], Read]:
        windows = _windows(opened, samples, seed, prompt)
        return windows, desk.read(opened, windows(opened))

    def score(name: str, samples: Any) -> Scored:
        model, (windows, theirs) = open_model(name), standard(samples)
        mine = windows(model)
        if not torch.equal(mine.tokens, theirs.windows.tokens):
            raise ModelError(f"the tokens of {name} are not those of {reference}: there is no KL between them")
        if model.vocabulary != opened.vocabulary:
            raise ModelError(f"{name} chooses among {model.vocabulary} tokens, {reference} among {opened.vocabulary}")
        found, _ = desk.compared(model, mine, theirs)
        return found, model.bytes, model.bits_per_weight, "; ".join(dict.fromkeys(model.notes)) or None

    return score


def _windows(reference: Model, samples: Any, seed: int, prompt: float) -> Callable[[Model], Windows]:
    """The windows of a model: those that are at hand, or of a text as its own tokenizer has it."""
    if isinstance(samples, torch.Tensor):
        whole: Callable[[Model], Windows] = lambda _: Windows(samples, 1, None)  # noqa: E731
    else:
        whole = Texts(read_text(samples), str(samples), length_for([reference], None), seed=seed).windows
    return (lambda model: behind(whole(model), prompt)) if prompt else whole


def _of_pictures(reference: str, device: str | None, tell: Tell) -> Scorer:
    at, opened = device_of(device), open_vision(reference)

    @cache
    def standard(samples: Any) -> tuple[Pictures, torch.Tensor]:
        pictures = samples if isinstance(samples, Pictures) else read_pictures(samples, opened.classes())
        return pictures, logits_of(opened, pictures, at, tell)[0]

    def score(name: str, samples: Any) -> Scored:
        model, (pictures, theirs) = open_vision(name), standard(samples)
        logits, _ = logits_of(model, pictures, at, tell)
        if logits.shape[1] != theirs.shape[1]:
            raise ModelError(f"{name} chooses among {logits.shape[1]} classes, {reference} among {theirs.shape[1]}")
        return compared(logits, theirs, pictures), model.bytes, model.bits_per_weight, None

    return score
