"""Damage: what an edit is expected to cost, in nats per token. Rules by name, found by path.

A rule is a module with `rows(units, edits, weights, factors, dtype)`, which gives by a unit's name, for each of its
edits (None where it cannot have one), the damage and its standard error, and the cut matrices of a few probes: they
correct the whole. Units come together, so that a rule can work on their matrices side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from secateur.model.factors import Factors
from secateur.types import Edit, SecateurError, Unit


@dataclass(frozen=True)
class Row:
    """Damages and errors of one unit, [edits]; `probes[level][key]` are matrices cut for the correction, and what the
    rule says of them, `expected[level]`."""

    damage: np.ndarray
    error: np.ndarray
    probes: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    expected: Mapping[int, float] = field(default_factory=dict)


class Rule(Protocol):
    def rows(
        self,
        units: Sequence[Unit],
        edits: Mapping[str, Sequence[Edit | None]],
        weights: Mapping[str, Tensor],
        factors: Mapping[str, Factors],
        dtype: str,
    ) -> dict[str, Row]: ...


def names() -> list[str]:
    """The rules there are."""
    return sorted(file.stem.replace("_", "-") for file in Path(__file__).parent.glob("*.py") if file.stem[0] != "_")


def find(name: str) -> Any:
    """The rule of this name."""
    if name not in names():
        near = get_close_matches(name, names(), 1)
        raise SecateurError(
            f"there is no damage `{name}`", f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names())}"
        )
    return import_module(f"{__name__}.{name.replace('-', '_')}")
