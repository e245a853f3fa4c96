"""From names to an eye: a model, a file of examples, and a file of those that are wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from secateur.measure.models import open_model
from secateur.measure.windows import length_for
from secateur.model.pool import Texts, open_pool
from secateur.model.pool.arrays import Arrays
from secateur.parts.eyes import Charge
from secateur.parts.eyes.pictures import PictureEye
from secateur.parts.eyes.texts import TextEye
from secateur.parts.vision import is_vision, open_vision
from secateur.types import DataError, SecateurError

Tell = Callable[[str, int, int], None]


def open_eye(
    model: str,
    data: str | Path,
    target: str | Path | None,
    samples: int | None,
    seq_len: int | None,
    documents: str | None,
    device: torch.device,
    tell: Tell,
) -> TextEye | PictureEye:
    """A language model before texts, or an image model before pictures; `samples` of them, spread evenly."""
    charge = Charge()
    at_target: Tell = lambda what, done, total: tell(f"{what} at the target", done, total)  # noqa: E731
    if is_vision(model):
        for name, value in (("seq-len", seq_len), ("documents", documents)):
            if value is not None:
                raise SecateurError(f"`--{name}` is for language models", "leave it out for image models")
        looker, pictures = open_vision(model), Arrays(data)
        wanted = None if target is None else PictureEye(looker, Arrays(target), device, charge, tell=at_target)
        some = _some(torch.arange(len(pictures)), samples, data)
        return PictureEye(looker, pictures, device, charge, some, wanted, tell)
    reader = open_model(model)
    length, texts = length_for([reader], seq_len), open_pool(data, documents)
    aim = None
    if target is not None:
        mine = open_pool(target, documents if Path(target).suffix == Path(data).suffix else None)
        aim = TextEye(reader, mine, length, device, charge, _numbers(mine, target), tell=at_target)
    return TextEye(reader, texts, length, device, charge, _some(_numbers(texts, data), samples, data), aim, tell)


def _numbers(pool: Texts, name: str | Path) -> Tensor:
    """Those that have text."""
    found = torch.tensor([number for number, _ in pool.texts()], dtype=torch.long)
    if not len(found):
        raise DataError(f"{name} holds no text", "give a file with some")
    return found


def _some(numbers: Tensor, samples: int | None, name: str | Path) -> Tensor:
    n = len(numbers)
    if samples is None or samples == n:
        return numbers
    if samples > n:
        raise DataError(f"{name} holds {n:,} examples, not {samples:,}", f"take at most --samples {n}")
    return numbers[torch.arange(samples) * n // samples]
