"""What is held back, as a map: how its examples lie together, and what each is to look at. Written once a cut.

`examples.json` says nothing of the cut; `windows.json` beside it says what every example lost. Both are in the same
order. The vectors come from the pass that measures anyway: the mean of the uncut network's last hidden states, and of
an image model what its last layer reads.
"""

from __future__ import annotations

import base64
import json
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.cut.case import Case
from secateur.export import Parts
from secateur.export._write import write_text
from secateur.measure.compare import Comparison
from secateur.methods.data.dendromap import central, tree
from secateur.model.pictures import Pictures
from secateur.model.whole import Whole
from secateur.parts.reading import tokenizer_of

log = logging.getLogger("secateur")

#: what the held-back examples are, and KL and rise of the loss of each, which paired comparisons of two cuts need
EXAMPLES, WINDOWS = "examples.json", "windows.json"
#: examples on the map at most, spread evenly; characters of each that are told; bytes that all small pictures may take
MOST, TOLD, PICTURED = 1000, 600, 2_000_000
_READ = "read"


@dataclass
class Seen:
    """What is noted of every held-back example while the uncut and the cut network are compared."""

    vectors: list[Tensor] = field(default_factory=list)
    firsts: list[Tensor] = field(default_factory=list)  # first choices of both, where there is one an example

    def __call__(self, states: Tensor, theirs: Tensor, ours: Tensor) -> None:
        """Some more: the uncut network's last states [examples, places, width], and both networks' logits."""
        # nothing predicts the first of several places, and in language models it lies far from all others
        self.vectors.append(states[:, 1 if states.shape[1] > 1 else 0 :].float().mean(1).cpu())
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
    layer = _last(stream.network, stream.classes) if isinstance(stream, Whole) else None
    if layer is None:
        yield
        return
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().flatten(1).float().cpu()))
    try:
        yield
    finally:
        handle.remove()
    Parts(work).save(_READ, {"x": torch.cat(seen)})


def _last(network: nn.Module, classes: int) -> nn.Linear | None:
    """The linear layer that tells the classes apart."""
    found = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
    return found[-1] if found else None


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
    small = _small(some.x)
    told: dict[str, Any] = {"said": [f"label {label}" for label in some.labels.tolist()]}
    return told | ({"pictures": small} if small else {})


def _small(x: Tensor) -> list[str]:
    """Each example as a PNG in a `data:` address, no larger than all of them may be; none where they are no pictures.

    Colours are taken as they are; what has no three channels is grey, from the least of all examples to the most.
    """
    grey = x.dim() == 3 or (x.dim() == 4 and 1 in (x.shape[1], x.shape[-1]))
    last, first = x.dim() == 4 and x.shape[-1] == 3, x.dim() == 4 and x.shape[1] == 3
    if not (grey or last or first):
        return []
    planes = x.reshape(len(x), 1, *[n for n in x.shape[1:] if n != 1][-2:]) if grey else x.movedim(-1, 1) if last else x
    if planes.dim() != 4 or min(planes.shape[2:]) < 2:
        return []
    planes = planes.float()
    if x.dtype != torch.uint8:
        low, high = planes.min(), planes.max()
        planes = (planes - low) / (high - low).clamp(min=1e-9) * 255
    # a pixel takes about a byte a channel, and a third more as text
    side = int((PICTURED / (len(x) * 1.3 * planes.shape[1])) ** 0.5)
    shape = [max(1, min(n, round(n * side / max(planes.shape[2:])))) for n in planes.shape[2:]]
    planes = functional.interpolate(planes, size=shape, mode="area").round().clamp(0, 255).byte()
    return [_png(one.movedim(0, -1).contiguous()) for one in planes]


def _png(pixels: Tensor) -> str:
    """A picture [height, width, 1 or 3] as PNG."""
    high, wide, channels = pixels.shape

    def piece(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.numpy().tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", wide, high, 8, 2 if channels == 3 else 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(rows, 9)) + piece(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()
