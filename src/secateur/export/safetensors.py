"""Plain safetensors: the cut weights in the model's own number type, which every reader loads.

No edit saves anything, but for half(), where 32 bits were stored, and those that take parts of the network away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.export._dense import dense_encode, dense_layout, dense_refuses, groups_refuse, plain_type
from secateur.export._shards import Shards
from secateur.export._verify import verify_in_transformers
from secateur.export._vision import is_vision, verify_vision
from secateur.export._widths import widths
from secateur.export._write import Layout, write_config
from secateur.maths.grids import Coded
from secateur.model.load import SMALLER
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.half import Half
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import Edit, Plan, Unit


@dataclass(frozen=True)
class Safetensors:
    """Holds any edit, at the price of none: bytes and multiplications are those of plain numbers."""

    name: str = "safetensors"
    dense: ClassVar[bool] = True
    disk: ClassVar[Shards] = Shards()
    pictures: ClassVar[bool] = True
    shapes: ClassVar[str] = "same"

    def edits(self) -> tuple[Edit, ...]:
        return (Keep(), Half(), *(Int(bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)), Fp8())

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        return dense_refuses(unit) or groups_refuse(unit, edit)

    def alike(self, units: Sequence[Unit]) -> tuple[tuple[str, ...], ...]:
        """No reader's scheme to share."""
        return ()

    def layout(self, unit: Unit, edit: Edit, dtype: str) -> dict[str, Layout]:
        return dense_layout(unit, plain_type(edit, dtype))

    def encode(self, unit: Unit, edit: Edit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
        return dense_encode(unit, coded, plain_type(edit, dtype))

    def seen(self, unit: Unit, edit: Edit, values: Tensor, dtype: str) -> Tensor:
        return values.to(getattr(torch, plain_type(edit, dtype))).float()

    def finish(self, folder: Path, config: Mapping[str, Any], plan: Plan, units: Sequence[Unit]) -> None:
        """Write config.json, last of all: a folder that has one is complete."""
        own = {key: value for key, value in config.items() if key not in ("quantization_config", SMALLER)}
        own |= widths(config, config[SMALLER]["shapes"]) if SMALLER in config else {}
        if any(unit.kind == "head" for unit in units):  # it is cut on its own, so nothing may tie it to the embedding
            own["tie_word_embeddings"] = False
        write_config(folder, own)

    def verify(self, folder: Path, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        if is_vision(folder):
            return verify_vision(folder, reference_logits, tokens)
        return verify_in_transformers(folder, reference_logits, tokens)
