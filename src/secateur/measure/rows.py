"""One row a model: read the windows, score them beside the reference, and say what it weighs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.measure.compare import Comparison, sums
from secateur.measure.models import Model
from secateur.measure.passes import Pass, read
from secateur.measure.speed import Clock, peak_rss
from secateur.measure.windows import Windows
from secateur.model.stream import device_of
from secateur.types import ModelError

#: logits computed at once: 32 MB in float32, of which scoring needs half a dozen at a time
ROOM = 1 << 23


@dataclass(frozen=True)
class Read:
    """A model that has read its windows."""

    model: Model
    windows: Windows
    passed: Pass
    park: Path  # where hidden states lie, if they are many


def same_tokens(models: Sequence[Model], windows: Sequence[Windows], against: bool) -> bool:
    """Whether all models read the tokens of the last, the reference, or else of the first; others get a note.

    ModelError if the tokens are the same but a network chooses among more of them, so that there is no KL.
    """
    base, tokens = (models[-1], windows[-1].tokens) if against else (models[0], windows[0].tokens)
    same = True
    for model, at in zip(models, windows, strict=True):
        if not torch.equal(at.tokens, tokens):
            same = False
            model.notes.append(f"its tokens are not those of {base.name}: compare bits per byte, not loss; no KL")
        elif against and model.vocabulary != base.vocabulary:
            raise ModelError(
                f"{model.name} chooses among {model.vocabulary} tokens and {base.name} among {base.vocabulary}, "
                "so there is no KL between them",
                "give a reference of the same vocabulary, or none",
            )
    return same


@dataclass
class Desk:
    """Where models are measured, one after the other; `park` is a folder for hidden states."""

    on: str | None
    park: Path
    tell: Callable[[str, int, int], None]
    _read: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.device = device_of(self.on)

    def read(self, model: Model, windows: Windows) -> Read:
        """Let the model read its windows."""
        self._read += 1
        file = self.park / f"states-{self._read}"
        said = f"reading {Path(model.name).name}"
        passed = read(model, windows.tokens, self.device, file, lambda i, n: self.tell(said, i, n))
        return Read(model, windows, passed, file)

    def row(self, model: Model, windows: Windows, standard: Read | None = None) -> dict[str, Any]:
        """Everything about one model. The reference itself is not read again."""
        return _row(model, windows, *self.compared(model, windows, standard))

    def compared(self, model: Model, windows: Windows, standard: Read | None = None) -> tuple[Comparison, float]:
        """What is known of each window, and the seconds that it took."""
        itself = standard is not None and model.files == standard.model.files
        mine = standard if itself and standard is not None else self.read(model, windows)
        comparable = standard is not None and torch.equal(standard.windows.tokens, windows.tokens)
        clock = Clock(self.device, mine.passed.clock.seconds)
        found = self._score(mine, standard if comparable else None, clock)
        if mine is not standard:
            mine.park.unlink(missing_ok=True)
        return found, clock.seconds

    @torch.no_grad()
    def _score(self, mine: Read, standard: Read | None, clock: Clock) -> Comparison:
        """Logits of both, piece by piece, and what is known of each window."""
        windows, n = mine.windows, len(mine.windows.tokens)
        totals: dict[str, Tensor] = {}
        with ExitStack() as stack:
            ours = stack.enter_context(mine.passed.logits())
            theirs = None
            if standard is not None and standard is not mine:
                theirs = stack.enter_context(standard.passed.logits())
            for rows, places in pieces(windows, mine.model.vocabulary):
                self.tell(f"scoring {Path(mine.model.name).name}", rows.start, n)
                with clock.running():
                    logits = ours(rows, places)
                reference = theirs(rows, places) if theirs else logits if standard else None
                labels = windows.tokens[rows, places.start + 1 : places.stop + 1]
                for name, total in sums(logits, labels, reference).items():
                    totals.setdefault(name, torch.zeros(n, dtype=torch.float64))[rows] += total
        self.tell(f"scoring {Path(mine.model.name).name}", n, n)
        found = Comparison()
        found.add(totals, windows.each)
        for read_, losses in ((mine, found.losses), (standard, found.reference)):
            if read_ is not None:
                _check_finite(read_.model, losses)
        return found


def pieces(windows: Windows, vocabulary: int) -> Iterator[tuple[slice, slice]]:
    """All places that predict a scored token: several windows at once, or parts of one, as logits fit into `ROOM`."""
    n, begin, end = len(windows.tokens), windows.first - 1, windows.tokens.shape[1] - 1
    together = max(1, ROOM // vocabulary)
    step = max(1, together // (end - begin))
    for row in range(0, n, step):
        for place in range(begin, end, together):
            yield slice(row, min(row + step, n)), slice(place, min(place + together, end))


def _check_finite(model: Model, losses: Sequence[float]) -> None:
    bad = sum(not math.isfinite(loss) for loss in losses)
    if bad:
        for name in model.stored.tensors:
            model.stored.check_finite(name)
        raise ModelError(
            f"the weights of {model.name} are finite, its losses on {bad} of {len(losses)} windows are not",
            "its activations overflow even in float32: the model is damaged, or was cut too far",
        )


def _row(model: Model, windows: Windows, found: Comparison, seconds: float) -> dict[str, Any]:
    compared = bool(found.kls)
    nats = found.loss * windows.scored
    return {
        "model": model.name,
        "loss": found.loss,
        "loss_error": found.loss_error,
        "perplexity": math.exp(min(found.loss, 700.0)),
        "bits_per_byte": nats / math.log(2) / windows.bytes if windows.bytes else None,
        "rise": found.rise if compared else None,
        "rise_error": found.rise_error if compared else None,
        "kl": found.kl if compared else None,
        "kl_error": found.kl_error if compared else None,
        "agreement": found.agreement if compared else None,
        "bytes": model.bytes,
        "bits_per_weight": model.bits_per_weight,
        "tokens": windows.scored,
        "seconds": seconds,
        "tokens_per_second": windows.tokens.numel() / seconds if seconds else None,
        "peak_rss_bytes": peak_rss(),
        "note": "; ".join(dict.fromkeys(model.notes)) or None,
    }
