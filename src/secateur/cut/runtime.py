"""What a runtime does beside running our weights: rounding activations to 8 bits, which no plan can help.

A format whose runtime does so has `roundings()`, what the activations of each layer cost, for the menu, and
`logits(folder, inputs)`, what the file as shipped makes of inputs, for the report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateur.cut.case import Case
from secateur.measure.compare import Comparison, sums
from secateur.parts.damage import Row
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.keep import Keep
from secateur.types import Edit

#: how much of what a layer's activations cost is not known: it hangs on which layers beside it are coded too
_ERROR = 0.5


def with_roundings(case: Case, menu: Sequence[Edit], rows: Mapping[str, Row]) -> dict[str, Row]:
    """The rows of all units, coded layers with what their rounded activations cost."""
    if not hasattr(case.format, "roundings"):
        return dict(rows)
    lost = case.format.roundings()  # type: ignore[attr-defined]
    coded = np.array([not isinstance(edit, Keep | Channels) for edit in menu])
    out = dict(rows)
    for unit in case.units:
        found = [lost[m.tensor] for m in unit.matrices if m.tensor in lost]
        if found:
            kl, error = sum(kl for kl, _ in found), sum(error for _, error in found)
            row = rows[unit.name]
            spread = np.hypot(row.error, np.hypot(_ERROR * kl, error))
            out[unit.name] = replace(row, damage=row.damage + kl * coded, error=np.where(coded, spread, row.error))
    return out


def as_shipped(case: Case, folder: Path, see: Callable[[Tensor, Tensor], None]) -> Comparison | None:
    """The file as its runtime runs it against the network as it is, on what is held back; None where the runtime
    computes what we did. `see` gets both networks' logits, ours behind theirs."""
    if not hasattr(case.format, "logits"):
        return None
    stream, out = case.stream, Comparison()
    plain = stream.through(0, stream.embed(case.held))
    with torch.no_grad():
        logits = case.format.logits(folder, stream.inputs(case.held))  # type: ignore[attr-defined]
    scored, labels = stream.answers(logits.reshape(plain.shape), case.held)
    out.add(sums(scored, labels, stream.answers(plain[:], case.held)[0]), labels.shape[1])
    see(plain[:], scored)
    return out
