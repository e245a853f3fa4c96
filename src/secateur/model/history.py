"""What a training job tells of itself, step by step; it lies beside the weights, and the report draws it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from secateur.model.disk import atomic
from secateur.types import DataError

#: the name of the file, in the folder of what was trained
FILE = "training.json"


@dataclass
class History:
    """Losses in nats per `each`: of every step as it was taken, and of what is held out now and then.

    `tokens` counts what has been read up to a step and with it (examples, where those are what a loss is counted by).
    """

    each: str = "token"
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    held_steps: list[int] = field(default_factory=list)
    held_losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def took(self, step: int, loss: float, tokens: int) -> None:
        """A step was taken: the loss on what it read, and how many tokens that was."""
        self.steps.append(step)
        self.losses.append(loss)
        self.tokens.append(tokens + (self.tokens[-1] if self.tokens else 0))

    def held(self, step: int, loss: float) -> None:
        """The loss on what is held out, behind a step."""
        self.held_steps.append(step)
        self.held_losses.append(loss)

    def save(self, folder: Path) -> None:
        with atomic(folder / FILE) as file:
            file.write((json.dumps(asdict(self)) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> History | None:
        """That of a folder; None where there is none, or a file of that name that tells other things; a DataError where
        it cannot be read."""
        try:
            told = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if isinstance(told, dict) and not isinstance(told.get("steps"), list):  # of ours it is
                return None
            made = cls(**told)
            _check(made)
            return made
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, OSError) as why:
            raise DataError(f"cannot read {folder / FILE} ({why})", "remove it, or train again") from None

    def thinned(self, most: int) -> tuple[list[float], list[float]]:
        """Steps and losses, neighbours as their means where there are more than so many."""
        each = max(1, math.ceil(len(self.steps) / most))
        groups = [slice(at, at + each) for at in range(0, len(self.steps), each)]
        return [_mean(self.steps[some]) for some in groups], [_mean(self.losses[some]) for some in groups]

    def smooth(self, span: float = 0.04) -> list[float]:
        """The losses as a running mean that forgets what is older than this share of all steps; it is the plain mean
        while it begins."""
        keep, total, weight, out = 1 - 1 / max(1.0, span * len(self.losses)), 0.0, 0.0, []
        for loss in self.losses:
            if math.isfinite(loss):
                total, weight = keep * total + loss, keep * weight + 1.0
            out.append(total / weight if weight else math.nan)
        return out


def _mean(some: Sequence[float]) -> float:
    return math.fsum(some) / len(some)


def _check(made: History) -> None:
    numbers = (made.steps, made.losses, made.tokens, made.held_steps, made.held_losses)
    if not all(isinstance(one, int | float) for some in numbers for one in some):
        raise ValueError("something in it is no number")
    if not len(made.steps) == len(made.losses) == len(made.tokens) or len(made.held_steps) != len(made.held_losses):
        raise ValueError("its columns are not of one length")
