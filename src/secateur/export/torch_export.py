"""torch.export: one file, `model.pt2`, that PyTorch runs without Transformers and without Secateur.

Any edit at its true width, of any network that can be traced: the graph holds packed codes and scales, and decodes each
layer when it gets there, in the same float32 arithmetic as ours, so that its logits are ours to the bit. The input is
token numbers [batch, length], both of any size; the output logits. No cache: every call reads the whole text anew.

The file is a zip. Its tensors are stored as they are, in files of their own, and come to what was quoted, to the byte;
the graph is text, compressed, and comes on top (about 10 KB a block). Nothing in it is a pickle, and `load` looks.
"""

from __future__ import annotations

import copy
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.export import Finished
from secateur.export._dress import decoded, dress
from secateur.export._graphed import Graphed
from secateur.export._verify import compare
from secateur.export._write import Layout, layout_bytes
from secateur.export.packed import Packed
from secateur.maths.grids import Coded
from secateur.model.anatomy import Anatomy, skeleton
from secateur.model.checkpoint import Checkpoint
from secateur.model.disk import atomic
from secateur.model.held import Held
from secateur.model.pictures import Prepare
from secateur.model.resize import reshaped, resized
from secateur.parts.edits import GridEdit
from secateur.parts.left import told
from secateur.types import Edit, ExportError, Unit

FILE = "model.pt2"
#: what tracing notes of every node for people who debug it: three quarters of the graph's text
_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "fwd_source_fn_stack", "torch_fn", "from_node")
#: what an archive of ours holds: numbers and text
_ENTRIES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/(weights/(weight_\d+|\w+_config\.json)|constants/(tensor_\d+|\w+_config\.json))"
)


@dataclass(frozen=True)
class TorchExport(Graphed):
    """Holds what `packed` holds, tensor by tensor; only the file is another. `source` is the uncut model."""

    source: Checkpoint | Held | None = None
    anatomy: Anatomy | None = None
    network: nn.Module | None = None
    prepare: Prepare | None = None
    name: str = "torch-export"
    tensors_apart: ClassVar[bool] = True
    pictures: ClassVar[bool] = True
    shapes: ClassVar[str] = "any"
    forms: ClassVar[bool] = True

    def edits(self) -> tuple[Edit, ...]:
        return Packed(self.anatomy).edits()

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        return Packed().refuses(unit, edit)

    def layout(self, unit: Unit, edit: GridEdit, dtype: str) -> dict[str, Layout]:
        return Packed().layout(unit, edit, dtype)

    def encode(self, unit: Unit, edit: GridEdit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
        return Packed().encode(unit, edit, coded, dtype)

    def seen(self, unit: Unit, edit: Edit, values: Tensor, dtype: str) -> Tensor:
        return values

    def tensor_bytes(self, name: str, layout: Layout) -> int:
        """The data alone: what the archive says of it is counted with the graph, which is not priced."""
        return layout_bytes(layout)

    def write(self, finished: Finished, folder: Path) -> list[Path]:
        """Trace the network over its packed tensors and save the graph with them. All of them are in memory."""
        assert self.source is not None and self.anatomy is not None, "a format found without a model writes nothing"
        held = {name: t for piece in finished.pieces for name, t in finished.parts.load(piece).items()}
        rest = [name for name in held if name in self.source.tensors and name not in _cut(finished.units)]
        made = decoded(finished.units, finished.edits, rest, held.__getitem__)
        called = str(self.source.folder)
        if self.network is None or self.prepare is None:
            empty = skeleton(self.source)  # type: ignore[arg-type]  # without a network it is a checkpoint on disk
            if finished.before and (smaller := told(finished.before, finished.units)):
                empty = reshaped(empty, smaller)
            program = traced(dress(empty, self.anatomy.sources, made), called)
        else:
            shapes = {m.tensor: m.stored or (m.rows, m.cols) for u in finished.units for m in u.matrices}
            shapes |= {name: tuple(held[name].shape) for name in rest}  # channels may have gone
            network = dress(resized(copy.deepcopy(self.network).cpu(), shapes), self.anatomy.sources, made)
            program = program_of(network, torch.zeros(2, *self.prepare.shape), (0,), called)
        folder.mkdir(parents=True, exist_ok=True)
        return [_save(program, folder / FILE)]

    def files(self, folder: Path) -> list[Path]:
        return [file for file in [folder / FILE] if file.exists()]

    def priced(self, files: Sequence[Path]) -> int:
        """Bytes of the tensors in the archive, as it says itself."""
        return sum(tensor_data(file) for file in files)

    def verify(self, folder: Path, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        """Load the file afresh in PyTorch and run it. It decodes layer by layer, so large models can be run as well."""
        said = f"torch {torch.__version__}"
        with torch.no_grad():
            logits = load(folder / FILE)(tokens)
        if reference_logits is None:
            return {"verified_in": f"{said} (run, nothing compared)", "logit_error": None}
        reference = reference_logits.reshape(logits.shape)
        return {"verified_in": said, "logit_error": compare(logits, reference, folder)}


class Logits(nn.Module):
    """Token numbers in, logits out: the one call that every runtime has."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        return self.network(input_ids=tokens, use_cache=False).logits


def traced(network: nn.Module, called: str) -> torch.export.ExportedProgram:
    """The graph of a language model, for any number of texts of any length."""
    return program_of(Logits(network), torch.arange(24).reshape(2, 12), (0, 1), called)


def program_of(network: nn.Module, example: Tensor, free: Sequence[int], called: str) -> torch.export.ExportedProgram:
    """The graph of a network of one input, whose axes `free` may have any size. ExportError if there is none."""
    sizes = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
    try:
        with torch.no_grad():
            return torch.export.export(network.eval(), (example,), dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # whatever it is that this architecture does and a graph cannot
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fixed = "Constraints violated" in said  # how it says that something holds for the example's size alone
        hint = "its forward fixes the number of examples: `len(x)` does, `x.shape[0]` does not" if fixed else ""
        raise ExportError(
            f"torch.export cannot trace {type(getattr(network, 'network', network)).__name__} of {called}: {said}",
            hint or "use another format: `packed` holds every architecture",
        ) from error


def load(file: Path) -> nn.Module:
    """The program in a .pt2 file of ours, ready to be called. ExportError if something in it would be unpickled.

    That is no reason to load files of strangers: PyTorch evaluates the sizes in a graph as expressions.
    """
    if entry := _strange(file):
        said = "which Secateur never writes and loading would unpickle"
        raise ExportError(f"{file} holds `{entry}`, {said}", "cut the model again")
    return torch.export.load(file).module()


def tensor_data(file: Path) -> int:
    """Bytes of tensors in a .pt2 file, without the graph's own constants."""
    with zipfile.ZipFile(file) as archive:
        return sum(one.file_size for one in archive.infolist() if "/data/weights/weight_" in one.filename)


def _cut(units: Sequence[Unit]) -> set[str]:
    return {matrix.tensor for unit in units for matrix in unit.matrices}


def _save(program: torch.export.ExportedProgram, path: Path) -> Path:
    """Save, without notes and examples, text compressed: the same bytes for the same program."""
    for node in program.graph.nodes:
        for note in _NOTES:
            node.meta.pop(note, None)
    program._example_inputs = None  # else they are pickled
    loose = path.with_name(f".{path.stem}.loose.pt2")
    try:
        torch.export.save(program, loose)
        with atomic(path) as file, zipfile.ZipFile(loose) as old, zipfile.ZipFile(file, "w") as new:
            for one in old.infolist():
                name = one.filename.partition("/")[2]
                entry = zipfile.ZipInfo(f"{path.stem}/{name}", (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
                entry.file_size = one.file_size  # so that it knows whether it needs 64-bit sizes
                with old.open(one) as read, new.open(entry, "w") as write:
                    shutil.copyfileobj(read, write, 1 << 22)
    finally:
        loose.unlink(missing_ok=True)
    return path


def _strange(file: Path) -> str | None:
    """An entry that we do not write, or None. What torch.export.load would unpickle is all among those."""
    with zipfile.ZipFile(file) as archive:
        for one in archive.infolist():
            name = one.filename.partition("/")[2]
            examples = name.startswith("data/sample_inputs/") and not one.file_size
            configured = name.endswith("_config.json") and b'"use_pickle": true' in archive.read(one)
            if configured or not (examples or _ENTRIES.fullmatch(name)):
                return one.filename
    return None
