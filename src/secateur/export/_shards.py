"""Models as .safetensors files: what three of our formats share of how a file lies on disk."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from secateur.export import Finished
from secateur.export._write import Layout, base_bytes, model_files, tensor_bytes


@dataclass(frozen=True)
class Shards:
    """Files called `stem.safetensors`: every tensor under the name and in the type that its layout says."""

    stem: str = "model"

    def tensor_bytes(self, name: str, layout: Layout) -> int:
        return tensor_bytes(name, layout)

    def base_bytes(self) -> int:
        return base_bytes()

    def layout_rest(self, stored: Mapping[str, Layout]) -> dict[str, Layout]:
        """As they are."""
        return dict(stored)

    def encode_rest(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors)

    def write(self, finished: Finished, folder: Path) -> list[Path]:
        """One file, whose bytes are what was quoted, header included."""
        return finished.parts.stitch(finished.pieces, folder, shard=sys.maxsize, stem=self.stem, called=finished.called)

    def priced(self, files: Sequence[Path]) -> int:
        return sum(file.stat().st_size for file in files)

    def files(self, folder: Path) -> list[Path]:
        return model_files(folder, self.stem)
