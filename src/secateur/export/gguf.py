"""GGUF: the file of llama.cpp. Every tensor has a block type of its own, embeddings and head included.

The whole model is one file: settings, tokenizer, chat template and tensors. Names, the order of rows and what is added
to norms are llama.cpp's (`parts/gguf/`); weights are rounded in our order, and packed rows are moved afterwards, which
is exact because every row is coded by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from secateur.export import Finished
from secateur.export._dense import FLOATS, is_plain, plain_type
from secateur.export._ggufverify import verify
from secateur.export._write import Layout, layout_bytes
from secateur.maths.grids import Coded, blocks
from secateur.model.anatomy import Anatomy
from secateur.model.checkpoint import Checkpoint
from secateur.model.disk import atomic
from secateur.model.load import config_of
from secateur.model.matrix import place
from secateur.parts.edits.ggml import Ggml
from secateur.parts.edits.half import Half
from secateur.parts.edits.keep import Keep
from secateur.parts.gguf import meta, vocab
from secateur.parts.gguf.names import (
    DECI,
    Arch,
    arch_of,
    expert_names,
    ggml_names,
    heads_of,
    is_norm,
    is_router,
    package,
    parameters_of,
    rows_by_block,
    turned,
)
from secateur.parts.gguf.read import own_words
from secateur.parts.reading import tokenizer_of
from secateur.types import DataError, Edit, ExportError, Matrix, Plan, PlanError, SecateurError, Unit

FILE = "model.gguf"
ALIGNED = 32  # bytes; where tensors begin
FILLED = "secateur.filled_up"  # metadata that nobody needs, as long as it takes


@dataclass(frozen=True)
class Gguf:
    """`source` and `anatomy` are the model's; without them it only says which files are its own."""

    source: Checkpoint | None = None
    anatomy: Anatomy | None = None
    widths: Mapping[str, list[int]] | None = None  # of every block, where a plan has made them
    name: str = "gguf"
    tensors_apart: ClassVar[bool] = True
    shapes: ClassVar[str] = "any"

    def __post_init__(self) -> None:
        if self.anatomy is not None and self.source is None:
            raise ExportError("llama.cpp runs language models, and this one sees pictures", "--format packed, or onnx")
        if self.source is not None:  # what cannot be written is said before the long part
            _ = self.metadata

    @property
    def disk(self) -> Gguf:
        return self

    # the menu

    def edits(self) -> tuple[Edit, ...]:
        """Every block type that we can put weights on; those of 32 only if rows of some unit need them."""
        units = self.anatomy.units if self.anatomy else ()
        odd = not units or any(m.cols % 256 for unit in units for m in unit.matrices)
        wanted = [kind for kind, (n, _) in blocks.KINDS.items() if n == 256 or odd or kind == "q8_0"]
        return (Keep(), Half(), *(Ggml(kind) for kind in wanted if _there(kind)))

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        strange = unit.kind == "experts" and not all(expert_names(_parameter(m)) for m in unit.matrices)
        if unit.kind == "conv" or strange:
            return f"GGUF files are written for linear layers and embeddings, and this is of the kind {unit.kind}"
        if is_plain(edit):
            return None
        if not isinstance(edit, Ggml):
            return "llama.cpp has no such grid: it has its own block types, like ggml('q4_k')"
        return edit.refuses(unit)

    def keeps(self, unit: Unit) -> str | None:
        """Why a part cannot be left out. llama.cpp skips what follows where a block has no MLP, its attention too."""
        mlp = unit.side is not None and unit.side.by == "channels"
        return "llama.cpp runs no block that has an attention and no MLP" if mlp else None

    def alike(self, units: Sequence[Unit]) -> tuple[tuple[str, ...], ...]:
        """Every tensor has its own type."""
        return ()

    def layout(self, unit: Unit, edit: Edit, dtype: str) -> dict[str, Layout]:
        if unit.kind == "experts":
            return {name: _stack_layout(some, edit, dtype) for name, some in _stacks(unit).items()}
        return {self._name(m): _layout(m, edit, dtype) for m in unit.matrices}

    def encode(self, unit: Unit, edit: Edit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
        def written(m: Matrix) -> Tensor:
            if is_plain(edit):
                return coded[m.key].values.to(getattr(torch, plain_type(edit, dtype)))
            return coded[m.key].tensors["blocks"]

        if unit.kind == "experts":
            stacks = _stacks(unit).items()
            return {name: torch.stack([written(m)[start:stop] for m, start, stop in some]) for name, some in stacks}
        out = {}
        for m in unit.matrices:
            x = written(m)
            heads = heads_of(self._name(m), (m.rows,), self._head)
            out[self._name(m)] = (turned(x, heads) if heads and self.arch.turned else x).contiguous()
        return out

    def seen(self, unit: Unit, edit: Edit, values: Tensor, dtype: str) -> Tensor:
        """What blocks hold is exact; what is kept is kept in the model's own type."""
        return values.to(getattr(torch, plain_type(edit, dtype))).float() if is_plain(edit) else values

    # the file

    def tensor_bytes(self, name: str, layout: Layout) -> int:
        said = _info_bytes(name, len(layout[1]))
        return (_aligned(said) if self._shaped else said) + _aligned(layout_bytes(layout))

    def base_bytes(self) -> int:
        """Metadata and the gap before the first tensor: both depend on names and shapes alone, never on a plan.

        Where tensors may go, what the file says of each is filled up to 32 bytes, all of it in the metadata: then the
        price of one does not hang on which others there are.
        """
        if self._shaped:
            return _aligned(self._head_bytes)
        infos = sum(_info_bytes(name, dims) for name, dims in self._everything.items())
        return _aligned(self._head_bytes + infos) - infos

    def layout_rest(self, stored: Mapping[str, Layout]) -> dict[str, Layout]:
        """Norms, biases and learned positions in 32 bits, as llama.cpp wants them, and the file's own tensors."""
        own: dict[str, Layout] = {name: ("F32", tuple(x.shape)) for name, x in self._extra.items()}
        return {self.names[name]: ("F32", shape) for name, (_, shape) in stored.items()} | own

    def encode_rest(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = {}
        for stored, x in tensors.items():
            name, x = self.names[stored], x.float()
            heads = heads_of(name, tuple(x.shape), self._head)
            x = turned(x, heads) if heads and self.arch.turned else x
            out[name] = (x + self.arch.norms if is_norm(name) else x).contiguous()
        return out | self._extra

    def kept(self, stored: str, x: Tensor) -> dict[str, Tensor]:
        """One stored tensor [rows, cols] as it is: matrices in their own numbers, the rest as above."""
        name = self.names[stored]
        if x.ndim != 2 or name == "position_embd.weight" or is_router(name):
            return {name: self.encode_rest({stored: x})[name]}
        heads = heads_of(name, tuple(x.shape), self._head)
        return {name: (turned(x, heads) if heads and self.arch.turned else x).contiguous()}

    def write(self, finished: Finished, folder: Path) -> list[Path]:
        kinds = {
            name: finished.edits[unit.name]
            for unit in finished.units
            for name in (_stacks(unit) if unit.kind == "experts" else map(self._name, unit.matrices))
            if isinstance(finished.edits[unit.name], Ggml)
        }
        if self._shaped:
            return replace(self, widths=self._left(finished.units))._put(finished, folder, kinds)
        return self._put(finished, folder, kinds)

    def _put(self, finished: Finished, folder: Path, kinds: Mapping[str, Edit]) -> list[Path]:
        with atomic(folder / FILE) as file:
            self._write(file, finished, {name: edit.kind for name, edit in kinds.items()})  # type: ignore[attr-defined]
        return [folder / FILE]

    def priced(self, files: Sequence[Path]) -> int:
        return sum(file.stat().st_size for file in files)

    def files(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("*.gguf"))

    def finish(self, folder: Path, config: Mapping[str, Any], plan: Plan, units: Sequence[Unit]) -> None:
        """Nothing: the file says everything itself, and a config.json would make others look for other weights."""

    def verify(self, folder: Path, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        assert self.source is not None
        try:
            tokenizer = tokenizer_of(self.source)
        except DataError:
            tokenizer = None
        said = vocab.rule(self.source.folder)
        return verify(folder / FILE, tokenizer, reference_logits, tokens) | ({"note": said} if said else {})

    # what is known of the model

    @cached_property
    def metadata(self) -> dict[str, Any]:
        assert self.source is not None
        package()
        try:
            told = meta.metadata(self.arch, self._config, self._widths)
            size = self._shapes["token_embd.weight"][0]
            words = own_words(self.source) or vocab.metadata(self.source.folder, size)
            return told | {f"{self.arch.name}.vocab_size": size} | words
        except SecateurError as error:
            raise ExportError(error.message, error.hint) from error

    @cached_property
    def arch(self) -> Arch:
        assert self.source is not None
        found = arch_of(str(self.source.config.get("model_type")))
        if not self.uneven and not self._shaped:
            return found
        if found.renormed is not None:
            said = "llama.cpp runs blocks of experts in one shape alone"
            raise ExportError(said, "--format packed or safetensors, or cap bytes or bits alone")
        if found.name != "llama":
            raise ExportError(
                f"the blocks of this `{found.name}` differ in width, which llama.cpp runs for Llama alone",
                "write another format, --format torch-export for example",
            )
        return DECI

    @cached_property
    def uneven(self) -> bool:
        """Whether blocks differ in the number of heads or the width of their MLP."""
        return any(len(set(widths)) > 1 for widths in self._rows.values())

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """Rows of the matrices that say how wide a block is, block by block, for networks with Llama's names."""
        assert self.source is not None
        shapes = {name: entry.shape for name, entry in self.source.tensors.items()}
        return {name: rows_by_block(shapes, name) for name in ("q_proj", "k_proj", "gate_proj")}

    @cached_property
    def _shaped(self) -> bool:
        """Whether a plan may take channels, heads or parts away."""
        return self.anatomy is not None and any(unit.side is not None for unit in self.anatomy.units)

    def _left(self, units: Sequence[Unit]) -> dict[str, list[int]]:
        """Heads, KV heads and MLP width of every block, as a plan leaves them; 0 where a part is gone."""
        rows = {name: [0] * int(self._config.num_hidden_layers) for name in ("q_proj", "k_proj", "gate_proj")}
        for unit in units:
            for m in unit.matrices:
                name = m.tensor.removesuffix(".weight").rpartition(".")[2]
                if name in rows and unit.block is not None:
                    rows[name][unit.block] = m.rows
        return self._counted(*rows.values())

    @cached_property
    def _widths(self) -> dict[str, list[int]] | None:
        if self.widths is not None:
            return dict(self.widths)
        if not self.uneven and not self._shaped:
            return None
        return self._counted(*self._rows.values())

    def _counted(self, q: list[int], k: list[int], gate: list[int]) -> dict[str, list[int]]:
        heads = {"attention.head_count": q, "attention.head_count_kv": k}
        counts = {name: [rows // self._head for rows in each] for name, each in heads.items()}
        return counts | {"feed_forward_length": gate}

    @cached_property
    def names(self) -> dict[str, str]:
        """Stored tensor -> name in the file."""
        assert self.source is not None
        # without an anatomy (transformers builds no network of uneven blocks) stored names are the parameters' own
        parameters = (
            parameters_of(self.anatomy.sources) if self.anatomy else {name: name for name in self.source.tensors}
        )
        parameters = {stored: name for stored, name in parameters.items() if not expert_names(name)}
        named = ggml_names(self.arch, parameters.values(), int(self._config.num_hidden_layers))
        without = [stored for stored, parameter in parameters.items() if parameter not in named]
        if without:
            raise ExportError(
                f"llama.cpp's `{self.arch.name}` has no name for `{without[0]}`", "write another format, like packed"
            )
        return {stored: named[parameter] for stored, parameter in parameters.items()}

    @cached_property
    def _config(self) -> Any:
        return config_of(self.source)  # type: ignore[arg-type]  # there is one when this is asked

    @cached_property
    def _head(self) -> int:
        return meta.head_size(self._config)

    @cached_property
    def _extra(self) -> dict[str, Tensor]:
        return meta.extra_tensors(self._config)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        assert self.source is not None
        return {name: self.source.tensors[stored].shape for stored, name in self.names.items()}

    @cached_property
    def _everything(self) -> dict[str, int]:
        """Every tensor of the file and its number of dimensions."""
        units = self.anatomy.units if self.anatomy else ()
        stacks = {name: 3 for unit in units if unit.kind == "experts" for name in _stacks(unit)}
        own = {name: x.ndim for name, x in self._extra.items()}
        return {name: len(shape) for name, shape in self._shapes.items()} | stacks | own

    @cached_property
    def _head_bytes(self) -> int:
        with tempfile.TemporaryFile() as file:
            self._begin(self._writer(), file)
            return file.tell()

    def _name(self, matrix: Matrix) -> str:
        return self.names[matrix.tensor]

    def _writer(self, tensors: Sequence[tuple[str, int]] = ()) -> Any:
        """A writer that knows the metadata; `tensors` are those of the file, with their numbers of dimensions."""
        writer = package().GGUFWriter(None, self.arch.name)
        if self._shaped:
            infos = [_info_bytes(name, dims) for name, dims in tensors]
            writer.add_string(FILLED, " " * (1 + sum(_aligned(one) - one for one in infos)))  # it leaves "" out
        for key, value in self.metadata.items():
            _add(writer, key, value)
        return writer

    def _begin(self, writer: Any, file: IO[bytes]) -> None:
        """Write the metadata into a file that is open already, so that it can appear whole or not at all."""
        writer.fout, writer.state = [file], package().gguf_writer.WriterState.EMPTY
        writer.write_header_to_file()
        writer.write_kv_data_to_file()

    def _write(self, file: IO[bytes], finished: Finished, kinds: Mapping[str, str]) -> None:
        pieces = {piece: finished.parts.layouts([piece]) for piece in finished.pieces}
        everything = [(name, len(shape)) for layouts in pieces.values() for name, (_, shape) in layouts.items()]
        types, writer = package().GGMLQuantizationType, self._writer(everything)
        for layouts in pieces.values():
            for name, (dtype, shape) in layouts.items():
                raw = np.dtype(np.uint8 if dtype == "U8" else np.float16)  # of bytes it makes a shape in weights
                kind = types[kinds.get(name, dtype).upper()]
                writer.add_tensor_info(name, shape, raw, layout_bytes((dtype, shape)), kind)
        self._begin(writer, file)
        writer.write_ti_data_to_file()
        for piece, layouts in pieces.items():
            held = finished.parts.load(piece)
            for name in layouts:
                writer.write_tensor_data(held[name].view(torch.uint8).numpy())


def _add(writer: Any, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    if isinstance(value, list):
        writer.add_array(key, value)
    elif key != "general.architecture":  # the writer has said it already
        add[type(value)](key, value)


def _layout(matrix: Matrix, edit: Edit, dtype: str) -> Layout:
    if isinstance(edit, Ggml):
        return "U8", (matrix.rows, blocks.row_bytes(edit.kind, matrix.cols))
    return FLOATS[plain_type(edit, dtype)], (matrix.rows, matrix.cols)


def _parameter(matrix: Matrix) -> str:
    return place(matrix).parameter


def _stacks(unit: Unit) -> dict[str, list[tuple[Matrix, int, int]]]:
    """The tensors that hold experts, by their names: a matrix and which of its rows, one expert after the other."""
    found: dict[str, list[tuple[Matrix, int, int]]] = {}
    for m in unit.matrices:
        at = place(m)
        names = expert_names(at.parameter)
        alone = names[at.start // m.rows : at.start // m.rows + 1] if at.stop else names  # gate or up, or both in one
        rows = m.rows // len(alone)
        for i, name in enumerate(alone):
            found.setdefault(name, []).append((m, i * rows, (i + 1) * rows))
    return found


def _stack_layout(some: Sequence[tuple[Matrix, int, int]], edit: Edit, dtype: str) -> Layout:
    (m, start, stop), *_ = some
    kind, (_, wide) = _layout(m, edit, dtype)
    return kind, (len(some), stop - start, wide)


def _there(kind: str) -> bool:
    """Whether weights can be put on this type: of some we know only the bytes."""
    try:
        return getattr(blocks.grid(kind), "book", kind) is not None
    except (PlanError, KeyError):
        return False


def _info_bytes(name: str, dims: int) -> int:
    """What the file says of a tensor: its name with its length, dimensions, type, and where it begins."""
    return 8 + len(name.encode()) + 4 + 8 * dims + 4 + 8


def _aligned(n: int) -> int:
    return -(-n // ALIGNED) * ALIGNED
