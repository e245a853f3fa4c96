"""ONNX: what ONNX Runtime runs on phones, in browsers and on processors of every make.

Linear layers and embeddings are `MatMulNBits` and `GatherBlockQuantized` of 2, 4 or 8 bits in blocks of 16 to 256, each
with bits and blocks of its own; what is kept lies in its own number type and is cast when the file is loaded. The input
is token numbers [batch, length], both of any size; the output float32 logits. No cache: every call reads the whole text
anew, which scores and embeds text; to generate long ones use a runtime with a cache.

What is quoted is the size of `model.onnx.data`, to the byte; `model.onnx`, the graph, comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.export import Finished, _blocks
from secateur.export._dense import dense_encode, dense_layout, dense_refuses, groups_refuse
from secateur.export._dress import decoded, dress
from secateur.export._graph import FILE, OPSET, graph, ready, save, session, widths
from secateur.export._graphed import Graphed
from secateur.export._layers import Gather, Multiply
from secateur.export._pictures import OnnxPictures
from secateur.export._verify import compare
from secateur.export._write import Layout
from secateur.export.torch_export import traced
from secateur.maths.grids import Coded
from secateur.model.anatomy import Anatomy, skeleton
from secateur.model.checkpoint import Checkpoint
from secateur.model.matrix import place
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import Edit, ExportError, Matrix, Unit

__all__ = ["Onnx", "OnnxPictures"]

#: what the runtime's 8-bit inputs may do to the logits, as a share of their size (0.5% to 0.8% to every product); the
#: weights themselves are checked with exact inputs, to the limit of all formats
ROUNDED_LIMIT = 0.2


@dataclass(frozen=True)
class Onnx(Graphed):
    """`source` is the uncut model: without one the format only tells what it can hold."""

    source: Checkpoint | None = None
    anatomy: Anatomy | None = None
    name: str = "onnx"
    tensors_apart: ClassVar[bool] = True
    pictures: ClassVar[bool] = True
    operators: ClassVar[ModuleType] = _blocks  # how matrices lie, and what computes with them
    opset: ClassVar[int] = OPSET

    def __post_init__(self) -> None:
        if self.source is not None:
            ready()

    def edits(self) -> tuple[Edit, ...]:
        """Two bits in blocks of 16 and 256 run as well, forty times slower, and are left for those who ask."""
        groups = {2: (32, 64, 128), 4: (32, 64, 128, 256), 8: (64, 128)}
        ints = [Int(bits, group, even) for bits, some in groups.items() for group in some for even in (True, False)]
        return (Keep(), *ints)

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        if why := dense_refuses(unit):
            return why
        if isinstance(edit, Keep):
            return None
        if unit.kind == "experts":
            return "experts in one tensor have an operator of their own in ONNX Runtime, which is not written yet"
        if self.operators is _blocks and isinstance(edit, Int) and self.source and edit.bits not in widths():
            return f"the installed ONNX Runtime does not run integers of {edit.bits} bits"
        return self.operators.refuses(edit) or groups_refuse(unit, edit)

    def layout(self, unit: Unit, edit: Edit, dtype: str) -> dict[str, Layout]:
        if not isinstance(edit, Int):
            return dense_layout(unit, dtype)
        made = (self.operators.layout(m, edit, dtype, unit.kind == "embedding") for m in unit.matrices)
        return {name: one for some in made for name, one in some.items()}

    def encode(self, unit: Unit, edit: Edit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
        if not isinstance(edit, Int):
            return dense_encode(unit, coded, dtype)
        looked_up = unit.kind == "embedding"
        made = [self.operators.encode(m, edit, coded[m.key].tensors, dtype, looked_up) for m in unit.matrices]
        return {name: tensor for one in made for name, tensor in one.items()}

    def seen(self, unit: Unit, edit: Edit, values: Tensor, dtype: str) -> Tensor:
        return values

    def write(self, finished: Finished, folder: Path) -> list[Path]:
        """Trace the network with its layers exchanged for the runtime's. All stored tensors are in memory."""
        assert self.source is not None and self.anatomy is not None, "a format found without a model writes nothing"
        held = {name: t for piece in finished.pieces for name, t in finished.parts.load(piece).items()}
        network = self._exchanged(finished, held)
        called = str(self.source.folder)
        kinds = {
            name: kind
            for unit in finished.units
            if isinstance(edit := finished.edits[unit.name], Int)
            for m in unit.matrices
            for name, kind in self.operators.kinds(m, edit, unit.kind == "embedding").items()
        }
        model = graph(traced(network, called), "tokens", "logits", held, self.opset, kinds)
        return save(model, held, folder, {"secateur.model": called})

    def verify(self, folder: Path, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        """Run the file in ONNX Runtime twice: with inputs as they are, where the logits must be ours, and as shipped,
        with inputs rounded to 8 bits; `logit_error` is that of the file as shipped, `logit_error_exact` the other."""
        import onnxruntime

        said = f"onnxruntime {onnxruntime.__version__}"
        shipped = run(folder / FILE, tokens)
        if reference_logits is None:
            return {"verified_in": f"{said} (run, nothing compared)", "logit_error": None}
        exact = folder / ".exact.onnx"
        try:
            _rewrite_exact(folder / FILE, exact)
            error = compare(run(exact, tokens), reference_logits, folder)
        finally:
            exact.unlink(missing_ok=True)
        rounded = compare(shipped, reference_logits, folder, ROUNDED_LIMIT)
        return {"verified_in": said, "logit_error": rounded, "logit_error_exact": error}

    def _exchanged(self, finished: Finished, held: Mapping[str, Tensor]) -> nn.Module:
        """The network on stored tensors: cut layers are the runtime's operators, all others cast what they need."""
        assert self.source is not None and self.anatomy is not None
        cut = {u: e for u in finished.units if isinstance(e := finished.edits[u.name], Int)}
        kept = [unit for unit in finished.units if unit not in cut]
        gone = {m.tensor for unit in finished.units for m in unit.matrices}
        rest = [name for name in held if name in self.source.tensors and name not in gone]
        made: dict[str, nn.Module] = decoded(kept, finished.edits, rest, held.__getitem__)
        network = skeleton(self.source)
        for unit, edit in cut.items():
            for matrix in unit.matrices:
                blocks = self.operators.Blocks(matrix, edit, held, unit.kind == "embedding")
                self._exchange(network, unit, matrix, blocks, made)
        return dress(network, self.anatomy.sources, made)

    def _exchange(
        self, network: nn.Module, unit: Unit, matrix: Matrix, blocks: nn.Module, made: Mapping[str, nn.Module]
    ) -> None:
        assert self.anatomy is not None
        path = place(matrix).module
        if unit.kind != "embedding":
            _replace(network, path, Multiply(blocks, self._bias(path, made)))
            return
        old: Any = network.get_submodule(path)
        factor = getattr(old, "embed_scale", None)
        scaled = None if factor is None else torch.as_tensor(factor).float()
        _replace(network, path, Gather(blocks, scaled))
        if self.anatomy.tied:
            _replace(network, self.anatomy.head, Multiply(blocks, self._bias(self.anatomy.head, made)))

    def _bias(self, path: str, made: Mapping[str, nn.Module]) -> nn.Module | None:
        assert self.anatomy is not None
        pieces = self.anatomy.sources.get(f"{path}.bias")
        return made[pieces[0].tensor] if pieces else None


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def run(file: Path, tokens: Tensor) -> Tensor:
    """Logits of a file as ONNX Runtime gives them."""
    try:
        (logits,) = session(file).run(None, {"tokens": tokens.cpu().numpy()})
    except Exception as error:  # whatever a runtime of somebody else's raises, the file did not run
        hint = "this is a fault of Secateur or of the installed runtime; please report it with its version"
        raise ExportError(f"ONNX Runtime cannot run {file}: {type(error).__name__}: {error}", hint) from error
    return torch.from_numpy(logits)


def _rewrite_exact(file: Path, out: Path) -> None:
    """The same graph over the same data, its products with inputs as they are."""
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = _blocks.EXACT
    out.write_bytes(model.SerializeToString())
