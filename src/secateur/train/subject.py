"""Who is trained: a language or an image model, which say the same of themselves; and what a training left of one."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from secateur.parts.vision import is_vision
from secateur.train.images import Images
from secateur.train.language import Language
from secateur.types import ModelError

Subject = Language | Images
#: what was done, in the folder of what was trained
FILE = "trained.json"


def open_subject(model: str, device: torch.device, scratch: int | None) -> Subject:
    """A model to be trained, all of it in memory; with `scratch` its weights are of chance, from that seed."""
    kind = Images if is_vision(model) else Language
    return kind.open(model, device, scratch)


def elastic_of(model: str) -> dict[str, tuple[float, ...]]:
    """The axes that a training has made elastic, and their sizes; ModelError where none has."""
    try:
        told = json.loads((Path(model) / FILE).read_text(encoding="utf-8"))
        axes = {str(name): tuple(map(float, shares)) for name, shares in told["about"]["elastic"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        axes = {}
    if not axes:
        hint = "secateur train MODEL --data text.txt --elastic width,depth -o out; or --elastic, to slice it unprepared"
        raise ModelError(f"{model} was not trained to be of several sizes", hint)
    return axes
