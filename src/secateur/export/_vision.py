"""Image models read back: the network is built from what the folder says, and its logits are held against ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.export._verify import compare
from secateur.parts.vision import PREFIX, is_vision, open_vision
from secateur.types import ExportError

__all__ = ["is_vision", "verify_vision"]


def verify_vision(folder: Path, reference_logits: Tensor | None, inputs: Tensor) -> dict[str, Any]:
    """`verified_in` and `logit_error`: the network built anew, with the folder's tensors, on a few inputs."""
    from secateur import __version__

    with torch.no_grad():
        logits = reopened(folder)(inputs.float())
    if reference_logits is None:
        raise ExportError(f"{folder} is read, but there is nothing to compare it with", "please report this")
    error = compare(logits, reference_logits.reshape(logits.shape), folder)
    return {"verified_in": f"secateur {__version__}, torch {torch.__version__}", "logit_error": error}


def reopened(folder: Path) -> nn.Module:
    """The network of a folder of ours, built anew."""
    import json

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    made_by = f"{config['function']}@" if config["model_type"] == PREFIX + "function" else ""
    return open_vision(f"{made_by}{folder}").network
