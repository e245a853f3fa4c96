"""Formats: each says which edits it can hold and what they cost, writes them, and checks the file in its runtime.

A format is a file here. `find("compressed-tensors", config, anatomy)` gives it for one model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from secateur.types import Edit, ExportError, Plan, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.export._write import Layout, Parts
    from secateur.maths.grids import Coded
    from secateur.model.anatomy import Anatomy
    from secateur.model.checkpoint import Checkpoint
    from secateur.model.held import Held


@dataclass(frozen=True)
class Finished:
    """A model that is cut and not yet a file: its tensors in pieces, what is left of every unit, which edit that has
    had, what the units were before, where some may have lost their shape, and what tensors are called that have another
    name than in the pieces."""

    parts: Parts
    pieces: tuple[str, ...]
    units: tuple[Unit, ...]
    edits: Mapping[str, Edit]
    before: tuple[Unit, ...] = ()
    called: Mapping[str, str] = field(default_factory=dict)


class Disk(Protocol):
    """How finished tensors become files, and how many bytes of them each takes.

    Prices are sums: what is quoted for a plan is `base_bytes` and `tensor_bytes` of every tensor, and the files come to
    that, to the byte. So nothing but a tensor's own bytes may depend on what is chosen for it.
    """

    def tensor_bytes(self, name: str, layout: Layout) -> int:
        """Bytes of the files that one tensor takes: its data, padding, and what a header says of it."""
        ...

    def base_bytes(self) -> int:
        """Bytes of the files beside all tensors."""
        ...

    def layout_rest(self, stored: Mapping[str, Layout]) -> dict[str, Layout]:
        """What the files hold for the stored tensors that are in no unit, as `layout` says it for units."""
        ...

    def encode_rest(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those tensors."""
        ...

    def write(self, finished: Finished, folder: Path) -> list[Path]:
        """Make files of the pieces, each whole or not at all: those that were priced."""
        ...

    def priced(self, files: Sequence[Path]) -> int:
        """What was quoted of those files, read from them: all bytes, or all but a graph that no price foresees."""
        ...

    def files(self, folder: Path) -> list[Path]:
        """Those of a folder's files that `write` makes, whoever wrote them."""
        ...


class Format(Protocol):
    """A way to lie on disk. What `layout` announces, `encode` makes: the price of an edit is what is written.

    A format whose readers take every tensor on its own, and do not fuse q, k and v, says so: `tensors_apart = True`;
    one that holds image models, `pictures = True`; one that holds language models in other shapes, `shapes = "any"`, or
    "same" where all blocks must have the same and some may be gone; one that holds low ranks and their like, `forms =
    True`.
    """

    @property
    def name(self) -> str: ...
    @property
    def disk(self) -> Disk: ...
    def edits(self) -> tuple[Edit, ...]:
        """The usual menu."""
        ...

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        """Why this unit cannot have this edit here, in words; None when it can."""
        ...

    def alike(self, units: Sequence[Unit]) -> tuple[tuple[str, ...], ...]:
        """Names of units that must all get the same edit, group by group."""
        ...

    def layout(self, unit: Unit, edit: Edit, dtype: str) -> dict[str, Layout]:
        """Every tensor that the file will hold for this unit: name -> (safetensors' type, shape)."""
        ...

    def encode(self, unit: Unit, edit: Edit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
        """Those tensors, from the coded matrices of the unit (by `matrix.key`)."""
        ...

    def seen(self, unit: Unit, edit: Edit, values: Tensor, dtype: str) -> Tensor:
        """What the runtime's reader makes of a matrix's `Coded.values`, in float32: some round once more."""
        ...

    def finish(self, folder: Path, config: Mapping[str, Any], plan: Plan, units: Sequence[Unit]) -> None:
        """Write what else the reader needs beside the finished files (config.json), last of all."""
        ...

    def verify(self, folder: Path, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        """Reload in the runtime and compare: `verified_in`, `logit_error`. ExportError on a mismatch.

        Without reference logits the model is too large for memory, and is compared in slices with our own reading.
        """
        ...


def names() -> list[str]:
    """The formats there are."""
    return sorted(f.stem.replace("_", "-") for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def find(
    name: str,
    config: Mapping[str, Any] | None = None,
    anatomy: Anatomy | None = None,
    source: Checkpoint | Held | None = None,
    **pictures: Any,
) -> Format:
    """The format of this name, for the model with this config.json, anatomy and checkpoint.

    A format says by the names of its parameters what it wants to know of the model. Of an image model there is more:
    `network`, `prepare` and `examples`; a format that lays it out in another way has a class of its own for it.
    """
    if name not in names():
        near = get_close_matches(name, names(), 1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names())}"
        raise ExportError(f"there is no format `{name}`", hint)
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    kind = getattr(module, name.title().replace("-", ""))
    if config is None:
        return kind()
    if pictures:
        kind = getattr(module, f"{kind.__name__}Pictures", kind)
    known = {
        "dtype": str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        "tied": anatomy.head if anatomy is not None and anatomy.tied else "",
        "model_type": str(config.get("model_type", "")),
        "anatomy": anatomy,
        "source": source,
        **pictures,
    }
    return kind(**{key: value for key, value in known.items() if key in signature(kind).parameters})


_HOME = {
    **dict.fromkeys(("Parts", "file_bytes", "write_model", "layout_of"), "secateur.export._write"),
    **dict.fromkeys(("export_folder", "companions"), "secateur.export._convert"),
    **dict.fromkeys(("read_model", "open_reading", "Reading"), "secateur.export._read"),
    "asymmetric_reloads": "secateur.export.compressed_tensors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module `secateur.export` has no `{name}`")
    return getattr(import_module(_HOME[name]), name)
