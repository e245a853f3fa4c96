"""The patient's anatomy: which weights can be cut, which must be cut alike, and what is left alone and why.

`skeleton(checkpoint)` builds the network without its weights, `anatomy(checkpoint, network)` reads it, `load_block` and
`unload` bring the weights of one module in and out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from secateur.model.checkpoint import Checkpoint
from secateur.model.families import Family, family
from secateur.model.load import load_block, skeleton, unload
from secateur.model.matrix import Place
from secateur.model.names import Piece, Sources, sources
from secateur.types import Matrix, Unit

__all__ = ["Anatomy", "anatomy", "load_block", "skeleton", "unload"]


@dataclass(frozen=True)
class Anatomy:
    """What can be cut (`units`, in the order of the network) and everything else.

    `blocks` are module paths, first to last. `rest` names the stored tensors in no unit: norms and biases, and those in
    `skipped`, which could have been weights to cut, each with the reason. `tied` says that the head multiplies by the
    embedding's matrix: then there is one unit of kind "embedding", whose tap is the embedding; what the head sees can
    be watched with `replace(matrix, tap=anatomy.head)`. `sources` gives every parameter's stored tensors.
    """

    units: tuple[Unit, ...]
    blocks: tuple[str, ...]
    rest: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    family: str
    tied: bool
    embedding: str = ""
    head: str = ""
    sources: Sources = field(default_factory=dict, repr=False)


def anatomy(checkpoint: Checkpoint, network: nn.Module) -> Anatomy:
    """Read a network (its parameters may be on meta) against the checkpoint that fills it."""
    found, unused = sources({name: entry.shape for name, entry in checkpoint.tensors.items()}, network)
    found, copies = _ties(checkpoint, network, found)
    table = family(str(checkpoint.config.get("model_type", "")))
    blocks = _blocks(network)
    embedding, head = _ends(network)
    reader = _Reader(found, blocks, table, embedding, head)
    units = reader.units(network)
    cut = {matrix.tensor for unit in units for matrix in unit.matrices}
    skipped = reader.skipped + [(name, "this architecture does not use it") for name in unused] + copies
    return Anatomy(
        units=units,
        blocks=blocks,
        rest=tuple(sorted(set(checkpoint.tensors) - cut)),
        skipped=tuple((name, why) for name, why in skipped if name not in cut),
        family=table.name,
        tied=bool(head) and found.get(f"{head}.weight") == found.get(f"{embedding}.weight"),
        embedding=embedding,
        head=head,
        sources=found,
    )


@dataclass
class _Layer:
    """One matrix, or one stack of experts, before runtimes' groups are applied."""

    path: str
    kind: str
    matrices: list[Matrix]


class _Reader:
    """Walks the network once; collects layers and the reasons for what is not one."""

    def __init__(self, found: Sources, blocks: tuple[str, ...], table: Family, embedding: str, head: str):
        self.found, self.blocks, self.table, self.embedding, self.head = found, blocks, table, embedding, head
        self.skipped: list[tuple[str, str]] = []

    def units(self, network: nn.Module) -> tuple[Unit, ...]:
        layers: dict[str, _Layer] = {}
        used: set[tuple[Piece, ...]] = set()
        for path, module in network.named_modules():
            for layer in self._layers(path, module, network):
                pieces = self.found[_parameter(layer)]
                if pieces not in used:  # a tied head is the embedding's matrix
                    layers[layer.path] = layer
                    used.add(pieces)
        return tuple(self._group(layers))

    def _layers(self, path: str, module: nn.Module, network: nn.Module) -> Iterator[_Layer]:
        own = [name for name, p in module.named_parameters(recurse=False) if p.dim() > 1]
        if not own:
            return
        router = any(path.endswith("." + name) for name in self.table.routers)
        if _is_experts(module) and not router:
            for name in own:
                if name in ("gate_up_proj", "up_proj", "down_proj"):
                    yield self._experts(path, module, name)
            own = [name for name in own if not name.endswith(("_proj", "_bias"))]
        elif not router and (why := self._unfit(path, module, network)) is None:
            yield self._layer(path, module)
            own = [name for name in own if name != "weight"]
        for name in own:
            why = (
                "a router or gate: it decides what each expert has to say"
                if router
                else self._unfit(path, module, network)
            )
            pieces = self.found.get(f"{path}.{name}" if path else name, ())
            why = why or "a bare parameter: nothing says how it is used"
            self.skipped += [(tensor, why) for tensor in dict.fromkeys(piece.tensor for piece in pieces)]

    def _unfit(self, path: str, module: nn.Module, network: nn.Module) -> str | None:
        """Why a module is not one matrix times its input, or None."""
        layers = (nn.Linear, nn.Conv1d, nn.Conv2d)
        if "transformers" in sys.modules:  # else nothing here is of its own
            from transformers.pytorch_utils import Conv1D

            layers = (*layers, Conv1D)
        kind = type(module)
        if isinstance(network.get_submodule(path.rpartition(".")[0]), nn.MultiheadAttention):
            return "inside torch's MultiheadAttention, which never calls it"
        if isinstance(module, nn.Embedding):
            known = kind.forward is nn.Embedding.forward or hasattr(module, "embed_scale")
            tokens = path == self.embedding or not self.embedding
            return None if known and tokens else "an embedding of positions or types, not of tokens"
        if isinstance(module, layers):
            base = next(b for b in layers if isinstance(module, b))
            if kind.forward is not base.forward:
                return f"{kind.__name__} multiplies in a way of its own"
            return None
        return f"a bare parameter of {kind.__name__}: nothing says how it is used"

    def _layer(self, path: str, module: Any) -> _Layer:
        weight = module.weight
        transposed = type(module).__name__ == "Conv1D"
        rows, cols = weight.shape[0], weight[0].numel()
        name = f"{path}.weight" if path else "weight"
        piece = self.found[name][0]
        matrix = Matrix(
            piece.tensor,
            cols if transposed else rows,
            rows if transposed else cols,
            tap=path,
            transposed=transposed,
            place="" if piece.tensor == name else name,
            stored=tuple(weight.shape) if weight.dim() > 2 else (),
        )
        kind = "conv" if weight.dim() > 2 else "embedding" if isinstance(module, nn.Embedding) else "linear"
        return _Layer(path, "head" if path == self.head else kind, [matrix])

    def _experts(self, path: str, module: Any, name: str) -> _Layer:
        """All experts of a layer: one matrix each, or one for each stored part (gate, up)."""
        weight = getattr(module, name)
        transposed = bool(module.is_transposed)
        parameter = f"{path}.{name}"
        pieces = self.found[parameter]
        stored = pieces[0].index is None  # 3-D on disk too
        matrices = []
        for piece in [Piece(pieces[0].tensor, i) for i in range(weight.shape[0])] if stored else pieces:
            rows, cols = (weight.shape[2], weight.shape[1]) if transposed else weight.shape[1:]
            part = not stored and piece.stop - piece.start < rows
            at = Place(parameter, piece.index, *((piece.start, piece.stop) if part else (0, 0)))
            matrices.append(
                Matrix(
                    piece.tensor,
                    piece.stop - piece.start if part else rows,
                    cols,
                    tap=f"{parameter}#{piece.index}",
                    index=piece.index if stored else None,
                    transposed=transposed,
                    place="" if stored and piece.tensor == parameter else str(at),
                )
            )
        return _Layer(f"{path}.{name.removesuffix('_proj')}", "experts", matrices)

    def _group(self, layers: dict[str, _Layer]) -> Iterator[Unit]:
        """Units in the network's order; a group stands where its first member stood, members as in its table."""
        groups = dict(self._groups(layers))
        group_of = {path: name for name, paths in groups.items() for path in paths}
        for name in dict.fromkeys(group_of.get(path, path) for path in layers):
            parts = [layers[path] for path in groups.get(name, [name])]
            tap = parts[0].matrices[0].tap
            same = len(parts) > 1 and self.table.same_input and parts[0].kind == "linear"
            matrices = tuple(replace(m, tap=tap) if same else m for part in parts for m in part.matrices)
            block = next((i for i, path in enumerate(self.blocks) if name.startswith(path + ".")), None)
            yield Unit(name, parts[0].kind, matrices, block)

    def _groups(self, layers: dict[str, _Layer]) -> Iterator[tuple[str, list[str]]]:
        """Names of groups and the paths of their layers."""
        for block in self.blocks:
            for group in self.table.groups:
                paths = [f"{block}.{member}" for member in group.members if f"{block}.{member}" in layers]
                if len(paths) == len(group.members) and len({layers[p].matrices[0].cols for p in paths}) == 1:
                    yield f"{block}.{group.name}", paths
        lists: dict[str, list[str]] = {}  # experts that the network keeps as a list of modules
        for path, layer in layers.items():
            if (match := re.fullmatch(r"(.*\bexperts)\.\d+\.(.+)", path)) and layer.kind == "linear":
                layer.kind = "experts"
                lists.setdefault(f"{match[1]}.{match[2]}", []).append(path)
        yield from lists.items()


def _parameter(layer: _Layer) -> str:
    """The parameter that a layer is a view of."""
    first = layer.matrices[0]
    return first.tap.partition("#")[0] if "#" in first.tap else f"{first.tap}.weight" if first.tap else "weight"


def _is_experts(module: Any) -> bool:
    """A stack of experts that keeps to transformers 5's contract for them (`use_experts_implementation`)."""
    if not hasattr(module, "_apply_gate") or getattr(module, "has_post_expert_norm", False):
        return False
    first = getattr(module, "gate_up_proj" if module.has_gate else "up_proj", None)
    return all(isinstance(p, nn.Parameter) and p.dim() == 3 for p in (first, getattr(module, "down_proj", None)))


def _blocks(network: nn.Module) -> tuple[str, ...]:
    """The list of modules that holds the most weights, the outermost if several do; nothing without a list."""
    lists = [
        (path, found) for path, found in network.named_modules() if isinstance(found, nn.ModuleList) and len(found)
    ]
    if not lists:
        return ()
    path, found = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    return tuple(f"{path}.{name}" for name, _ in found.named_children())


def _ends(network: nn.Module) -> tuple[str, str]:
    """Module paths of the token embedding and of the head; empty where there is none."""
    path_of = {id(module): path for path, module in network.named_modules()}
    ends = []
    for method in ("get_input_embeddings", "get_output_embeddings"):
        module = getattr(network, method, lambda: None)()
        ends.append(path_of.get(id(module), ""))
    return ends[0], ends[1]


def _ties(checkpoint: Checkpoint, network: nn.Module, found: Mapping[str, tuple[Piece, ...]]):
    """Where the config ties two parameters but the disk has both: equal ones are tied, others go their own ways.

    That is what transformers does; the second copy on disk is then reported, for it must not outlive the cut.
    """
    sources, copies = dict(found), []
    wanted = network.state_dict(keep_vars=True)
    owner: dict[int, str] = {}
    for name, value in wanted.items():
        first = owner.setdefault(id(value), name)
        if name not in sources or first not in sources or sources[first] == sources[name]:
            continue
        one, two = sources[first][0].tensor, sources[name][0].tensor
        if torch.equal(checkpoint.read(one), checkpoint.read(two)):
            sources[name] = sources[first]
            copies.append((two, f"a copy of `{one}`, to which it is tied"))
        else:
            module = network.get_submodule(name.rpartition(".")[0])
            module._parameters[name.rpartition(".")[2]] = nn.Parameter(torch.empty_like(value, device="meta"))
    return sources, copies
