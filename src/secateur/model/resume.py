"""A training that was killed goes on: weights, the optimiser's memory and the history, in one file that is whole."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.model.disk import atomic
from secateur.model.history import History
from secateur.types import DataError


@dataclass
class Keep:
    """Where a training is kept while it runs. `about` says which one it is: another's file is a DataError.

    It is written when `pause` seconds have gone by since the last time.
    """

    file: Path
    about: str = ""
    pause: float = 20.0
    _last: float = field(default_factory=time.monotonic, init=False)

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer, history: History) -> None:
        """Behind a step; most times it is too early and nothing is done."""
        if time.monotonic() - self._last < self.pause:
            return
        from safetensors.torch import save

        tensors = {f"model.{name}": value for name, value in _own(model).items()}
        for at, memory in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{at}.{name}": value for name, value in memory.items()}
        told = {"about": self.about, "history": json.dumps(asdict(history))}
        with atomic(self.file) as file:
            file.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, told))
        self._last = time.monotonic()

    def take_up(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> History | None:
        """Put a broken run's weights and memory in their places; its history, or None where nothing was kept."""
        if not self.file.exists():
            return None
        tensors, told = self._read()
        if told.get("about") != self.about:
            hint = "give the same command again to go on with it, or --fresh to begin anew"
            raise DataError(f"{self.file.parent} holds another training that broke off ({_differs(told, self)})", hint)
        with torch.no_grad():
            for name, value in _own(model).items():
                value.copy_(tensors[f"model.{name}"])
        memory: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            first, _, rest = name.partition(".")
            if first == "optimiser":
                at, _, key = rest.partition(".")
                memory.setdefault(int(at), {})[key] = value
        optimiser.load_state_dict({"state": memory, "param_groups": optimiser.state_dict()["param_groups"]})
        return History(**json.loads(told["history"]))

    def clear(self) -> None:
        """The training is over, and its result lies elsewhere."""
        self.file.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.file), "pt") as held:
                return {name: held.get_tensor(name) for name in held.keys()}, dict(held.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError) as why:
            raise DataError(f"cannot read {self.file} ({why})", "begin anew with --fresh") from None


def _own(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, those that are tied once, and buffers."""
    return {name: value.data for name, value in model.named_parameters()} | dict(model.named_buffers())


def _differs(told: dict[str, str], mine: Keep) -> str:
    """The settings that are others, in words."""
    try:
        theirs: dict[str, Any] = json.loads(told.get("about") or "{}")
        ours: dict[str, Any] = json.loads(mine.about or "{}")
        names = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
        return ", ".join(f"{name} {theirs.get(name)} and not {ours.get(name)}" for name in names)
    except (ValueError, AttributeError):
        return "of other settings"
