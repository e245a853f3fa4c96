"""What is held back, as a map: how its examples lie together, and what each is to look at. Written once a cut.

`examples.json` says nothing of the cut; `windows.json` beside it says what every example lost. Both are in the same
order. The vectors come from the pass that measures anyway: the mean of the uncut network's last hidden states, and of
an image model what its last layer reads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.cut.case import Case
from secateur.export import Parts
from secateur.export._write import write_text
from secateur.measure.compare import Comparison
from secateur.methods.data.dendromap import central, tree
from secateur.model.pictures import Pictures
from secateur.model.whole import Whole
from secateur.parts.eyes import last, noting, places
from secateur.parts.reading import tokenizer_of
from secateur.parts.thumbs import small

log = logging.getLogger("secateur")

#: what the held-back examples are, and KL and rise of the loss of each, which paired comparisons of two cuts need
EXAMPLES, WINDOWS = "examples.json", "windows.json"
#: examples on the map at most, spread evenly; characters of each that are told
MOST, TOLD = 1000, 600
_READ = "read"


@dataclass
class Seen:
    """What is noted of every held-back example while the uncut and the cut network are compared."""

    vectors: list[Tensor] = field(default_factory=list)
    firsts: list[Tensor] = field(default_factory=list)  # first choices of both, where there is one an example

    def __call__(self, states: Tensor, theirs: Tensor, ours: Tensor) -> None:
        """Some more: the uncut network's last states [examples, places, width], and both networks' logits."""
        self.vectors.append(places(states).cpu())
        self.firsts += _firsts(theirs, ours)

    def shipped(self, theirs: Tensor, ours: Tensor) -> None:
        """The logits of all examples, where a runtime does not compute what we did."""
        self.firsts = _firsts(theirs, ours)


def _firsts(theirs: Tensor, ours: Tensor) -> list[Tensor]:
    """The first choices of both [examples, 2], where there is one an example."""
    return [torch.stack([x[:, 0].argmax(-1).cpu() for x in (theirs, ours)], 1)] if theirs.shape[1] == 1 else []


@contextmanager
def reading(stream: Any, work: Path) -> Iterator[None]:
    """Inside, what the last layer of an image model reads is noted in the work folder; of others nothing is."""
    layer = last(stream.network, stream.classes) if isinstance(stream, Whole) else None
    if layer is None:
        yield
        return
    with noting(layer) as seen:
        yield
    Parts(work).save(_READ, {"x": torch.cat([read.flatten(1).float().cpu() for read in seen])})


def remember(case: Case, seen: Seen, compared: Comparison, work: Path, out: Path) -> None:
    """Write what is known of each held-back example, and of all of them as a map."""
    rises = [now - was for now, was in zip(compared.losses, compared.reference, strict=True)]
    told: dict[str, Any] = {"kl": compared.kls, "rise": rises}
    told |= {"right": compared.rights, "right_before": compared.reference_rights}
    if seen.firsts:
        before, after = torch.cat(seen.firsts).T.tolist()
        told |= {"first": after, "first_before": before}
    write_text(out / WINDOWS, json.dumps(told) + "\n")
    vectors = torch.cat(seen.vectors)
    if Parts(work).has(_READ) and len(read := Parts(work).load(_READ)["x"]) == len(vectors):
        vectors = read
    if not bool(torch.isfinite(vectors).all()):
        log.warning("the hidden states of some held-back examples are not finite: the report has no map of them")
        (out / EXAMPLES).unlink(missing_ok=True)
        return
    at = (torch.arange(min(len(vectors), MOST)) * len(vectors) // min(len(vectors), MOST)).tolist()
    some = vectors[at].double().numpy()
    made = tree(some)
    known = {"each": "example" if isinstance(case.held, Pictures) else "window", "all": len(vectors), "of": at}
    known |= {"children": made.children, "distance": made.distance, "central": central(made, some)}
    known |= _pictures(case.held[at]) if isinstance(case.held, Pictures) else _texts(case, case.held[at])
    write_text(out / EXAMPLES, json.dumps(known) + "\n")


def _texts(case: Case, windows: Tensor) -> dict[str, Any]:
    words = tokenizer_of(case.checkpoint)
    said = [str(words.decode(window.tolist()))[:TOLD] for window in windows[:, :TOLD]]
    return {"said": said}


def _pictures(some: Pictures) -> dict[str, Any]:
    pictures = small(some.x)
    told: dict[str, Any] = {"said": [f"label {label}" for label in some.labels.tolist()]}
    return told | ({"pictures": pictures} if pictures else {})
