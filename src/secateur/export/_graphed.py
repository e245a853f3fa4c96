"""What formats share whose file is a graph over tensors: of a tensor nothing is quoted but its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from secateur.export._graph import DATA, FILE, padded
from secateur.export._write import Layout, layout_bytes, write_config
from secateur.types import Plan, Unit


class Graphed:
    """The disk of such a format is the format itself: `model.onnx`, and the tensors in `model.onnx.data` beside it."""

    name: str

    @property
    def disk(self) -> Any:
        return self

    def alike(self, units: Sequence[Unit]) -> tuple[tuple[str, ...], ...]:
        """Every node is as it likes."""
        return ()

    def tensor_bytes(self, name: str, layout: Layout) -> int:
        return padded(layout_bytes(layout))

    def base_bytes(self) -> int:
        return 0

    def layout_rest(self, stored: Mapping[str, Layout]) -> dict[str, Layout]:
        """As they are."""
        return dict(stored)

    def encode_rest(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors)

    def files(self, folder: Path) -> list[Path]:
        return [file for file in (folder / DATA, folder / FILE) if file.exists()]

    def priced(self, files: Sequence[Path]) -> int:
        """The tensors' file: the graph is not priced."""
        return sum(file.stat().st_size for file in files if file.name == DATA)

    def finish(self, folder: Path, config: Mapping[str, Any], plan: Plan, units: Sequence[Unit]) -> None:
        """config.json says what lies beside it, and comes last."""
        write_config(folder, {**config, "quantization_config": {"quant_method": "secateur", "format": self.name}})
