"""Image models side by side on the same examples: loss, accuracy, divergence from a reference, size, FLOPs, speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.measure.compare import Comparison, sums
from secateur.measure.speed import Clock, peak_rss
from secateur.model.flops import flops
from secateur.model.pictures import Pictures, read_pictures
from secateur.model.stream import device_of
from secateur.parts.vision import Vision, is_vision, open_vision
from secateur.types import DataError, ModelError

_BATCH = 256


def measure_pictures(
    models: Sequence[str],
    data: str | Path,
    *,
    against: str | None = None,
    samples: int | None = None,
    device: str | None = None,
    tell: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """One row a model. Losses are nats per example, standard errors over examples; all is computed in float32.

    `samples` are that many examples, spread evenly over the file.
    """
    at = device_of(device)
    for name in (*models, *([against] if against else ())):
        if not is_vision(name):
            raise ModelError(f"{name} is no image model, others here are", "measure language models by themselves")
    opened = [open_vision(name) for name in models]
    reference = open_vision(against) if against is not None else None
    classes = (reference or opened[0]).classes()
    pictures = _some(read_pictures(data, classes), samples)
    theirs = None
    if reference is not None:
        theirs, _ = logits_of(reference, pictures, at, tell)
    rows = []
    for model in opened:
        logits, seconds = logits_of(model, pictures, at, tell)
        if logits.shape[1] != classes:
            raise ModelError(
                f"{model.name} chooses among {logits.shape[1]} classes and {(reference or opened[0]).name} among "
                f"{classes}",
                "measure models of the same task together",
            )
        rows.append(_row(model, logits, theirs, pictures, seconds))
    return {"data": str(data), "against": against, "examples": len(pictures), "rows": rows}


def _some(pictures: Pictures, samples: int | None) -> Pictures:
    n = len(pictures)
    if samples is None or samples == n:
        return pictures
    if samples > n:
        raise DataError(f"the data holds {n} examples, not {samples}", f"take at most --samples {n}")
    return pictures[torch.arange(samples) * n // samples]


@torch.no_grad()
def logits_of(
    model: Vision, pictures: Pictures, device: torch.device, tell: Callable[[str, int, int], None]
) -> tuple[Tensor, float]:
    """Logits of all examples, and the seconds that the network took."""
    network, clock, out = model.network.to(device), Clock(device), []
    for start in range(0, len(pictures), _BATCH):
        tell(f"reading {Path(model.name).name}", start, len(pictures))
        x = model.prepare(pictures.x[start : start + _BATCH].to(device))
        with clock.running():
            out.append(network(x))
    logits = torch.cat(out).cpu()
    tell(f"reading {Path(model.name).name}", len(pictures), len(pictures))
    if not bool(torch.isfinite(logits).all()):
        for name in model.held.state:
            model.held.check_finite(name)
        raise ModelError(
            f"the weights of {model.name} are finite, its logits are not", "the model is damaged, or was cut too far"
        )
    return logits, clock.seconds


def compared(logits: Tensor, reference: Tensor | None, pictures: Pictures) -> Comparison:
    """What is known of each example."""
    found = Comparison()
    places = None if reference is None else reference[:, None]
    found.add(sums(logits[:, None], pictures.labels[:, None], places), 1)
    return found


def _row(model: Vision, logits: Tensor, reference: Tensor | None, pictures: Pictures, seconds: float) -> dict[str, Any]:
    found, known = compared(logits, reference, pictures), reference is not None
    return {
        "model": model.name,
        "loss": found.loss,
        "loss_error": found.loss_error,
        "accuracy": found.accuracy,
        "accuracy_error": found.accuracy_error,
        "rise": found.rise if known else None,
        "rise_error": found.rise_error if known else None,
        "kl": found.kl if known else None,
        "kl_error": found.kl_error if known else None,
        "agreement": found.agreement if known else None,
        "bytes": model.bytes,
        "bits_per_weight": model.bits_per_weight,
        "flops": sum(flops(model.network.cpu(), model.example(1)).values()),
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "tokens": len(pictures),
        "examples": len(pictures),
        "seconds": seconds,
        "peak_rss_bytes": peak_rss(),
        "note": None,
    }
