"""An image model that is trained: opened whole, its pictures, and written as a folder of ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.export._vision import verify_vision
from secateur.export._write import file_bytes, layout_bytes, layout_of, write_config, write_model
from secateur.model import axes, builtin
from secateur.model.axes import Asked
from secateur.model.elastic import Slice, Supernet, shapes, sliced
from secateur.model.flops import flops
from secateur.model.goals import Goal, label
from secateur.model.pictures import Pictures, read_pictures
from secateur.parts.varied import parse, varied
from secateur.parts.vision import PREFIX, Vision, open_vision
from secateur.types import DataError, ModelError

#: every so many pictures one is held back; how many renew a normalisation's statistics, at most
HELD, RENEW = 10, 2000
#: of those that a slice is judged by, the share that renews its statistics
KNOWN = 0.5
#: pictures that run together
ROWS = 250


@dataclass(frozen=True)
class Images:
    """A `Vision` and what it learns."""

    vision: Vision
    goal: Goal
    batch: int = 64

    @classmethod
    def open(cls, model: str, device: torch.device, scratch: int | None) -> Images:
        """From a file, a folder or a function; with `scratch` its weights are drawn anew from that seed."""
        vision = open_vision(model, cut=False)
        builtin.without_counters(vision.network)
        if scratch is not None:
            _draw_anew(vision.network, scratch)
        vision.network.to(device)
        return cls(vision, label(vision.prepare))

    @property
    def network(self) -> nn.Module:
        return self.vision.network

    @property
    def name(self) -> str:
        return self.vision.name

    @property
    def digest(self) -> str:
        return self.vision.held.fingerprint

    def supernet(self, asked: Asked) -> Supernet:
        """What of it is elastic, of the axes that are asked for."""
        if "depth" in asked and self.vision.held.config["model_type"] == PREFIX + "function":
            raise ModelError(f"{self.name} is made by a function, which makes all of its blocks", "--elastic width")
        return axes.of_pictures(self.network, asked, self._example())

    # its data

    def data(self, data: str, seq_len: int | None, seed: int) -> tuple[Any, Any]:
        """Pictures to learn from, and held back, one of ten."""
        every = self._pictures(data, seq_len)
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
        held = min(max(len(every) // HELD, 8), 1000)
        if len(every) < 4 * held:
            raise DataError(f"{data} holds only {len(every)} pictures to learn from", "give more")
        return every[order[held:]], every[order[:held]]

    def judged(self, data: str, seq_len: int | None, samples: int | None, seed: int) -> tuple[Any, Any]:
        """Pictures to renew statistics with and others to measure on, half and half."""
        every = self._pictures(data, seq_len)
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[: samples or None]
        n = min(int(KNOWN * len(order)), RENEW)
        if n < 8:
            raise DataError(f"{data} holds only {len(order)} pictures to judge by", "give more")
        return every[order[:n]], every[order[n:]]

    def _pictures(self, data: str, seq_len: int | None) -> Pictures:
        if seq_len is not None:
            raise DataError("pictures have no --seq-len", "leave it out")
        return read_pictures(data, self.vision.classes())

    def varied(self, asked: str, learn: Pictures) -> Callable[[Any, Pictures], Pictures]:
        """What a pass sees of its batch, mirrored or moved."""
        return varied(parse(asked), learn[:1])

    def digest_of(self, learn: Any) -> str:
        return learn.digest()

    def some(self, data: Any, which: Tensor) -> Any:
        device = next(self.network.parameters()).device
        return Pictures(data.x[which].to(device), data.labels[which].to(device))

    def inputs(self, data: Any) -> Tensor:
        """What the network is given of some examples."""
        return self.vision.prepare(data.x)

    def logits(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def answers(self, data: Any) -> tuple[Tensor, Tensor]:
        """Logits [pictures, 1, classes] and what each shows, [pictures, 1]."""
        return self.logits(self.inputs(data))[:, None], data.labels[:, None]

    def rows(self, data: Any) -> int:
        """How many examples may be in memory at once."""
        return ROWS

    # what a slice is, on disk and at work

    def spent(self, net: Supernet, one: Slice) -> dict[str, float]:
        """Bytes of the file, header and all, and FLOPs an example, as a cut counts them."""
        stored = {name: ("F32", shape) for name, shape in shapes(self.network, net, one).items()}
        with sliced(self.network, net, one):
            products = sum(flops(self.network, self._example(1)).values())
        return {
            "bytes": file_bytes(stored),
            "bits_per_weight": 8 * sum(map(layout_bytes, stored.values())) / self.vision.weights,
            "flops": products,
            "parameters": sum(math.prod(shape) for _, shape in stored.values()),
        }

    def write(
        self, own: Mapping[str, Tensor], folder: Path, net: Supernet | None = None, one: Slice | None = None
    ) -> int:
        """A folder of ours with plain weights. Bytes of its file."""
        tensors = {name: value.detach().cpu().float().contiguous() for name, value in own.items()}
        files = write_model(folder, {name: layout_of(value) for name, value in tensors.items()}, tensors.__getitem__)
        write_config(folder, dict(self.vision.held.config))
        return sum(file.stat().st_size for file in files)

    def bytes(self) -> int:
        """Of the file of the whole network."""
        return int(self.spent(Supernet((), ()), Slice(()))["bytes"])

    def probe(self) -> Tensor:
        """Inputs of chance, to compare logits on."""
        inputs = torch.randn(8, *self.vision.prepare.shape, generator=torch.Generator().manual_seed(0))
        return inputs.to(next(self.network.parameters()).device)

    def verify(self, folder: Path, logits: Tensor, inputs: Tensor) -> dict[str, Any]:
        return verify_vision(folder, logits.cpu(), inputs.cpu())

    def _example(self, n: int = 2) -> Tensor:
        return self.vision.example(n).to(next(self.network.parameters()).device)


def _draw_anew(network: nn.Module, seed: int) -> None:
    """Every layer as torch begins it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
