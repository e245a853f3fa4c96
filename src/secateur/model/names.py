"""Which stored tensors make up which parameter: the names on disk are not always the names in the network.

GPT-NeoX stores `embed_out` for `lm_head`, an old GPT-2 leaves `transformer.` away, Mixtral stores every expert on its
own where transformers 5 keeps one 3-D parameter. transformers has a table of all this and loads with it; we ask the
same table, so that we read what it would read. All contact with that table is in this file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.types import ModelError


@dataclass(frozen=True)
class Piece:
    """A stored tensor and what it fills of a parameter: all of it, or rows `start` to `stop` of expert `index`."""

    tensor: str
    index: int | None = None
    start: int = 0
    stop: int = 0


#: every parameter (and stored buffer) of a network -> the tensors it is made of
Sources = Mapping[str, tuple[Piece, ...]]
#: every stored tensor -> its shape
Shapes = Mapping[str, tuple[int, ...]]

_STACKING = (["MergeModulelist"], ["MergeModulelist", "Concatenate"])  # the conversions that we can follow


def sources(shapes: Shapes, network: nn.Module) -> tuple[dict[str, tuple[Piece, ...]], list[str]]:
    """The pieces of every parameter, and the stored tensors that this network does not use.

    `shapes` are the tensors on disk. Parameters that share storage with another (a tied head) may be missing on disk;
    any other missing parameter is a ModelError.
    """
    wanted = dict(network.state_dict(keep_vars=True))
    whole, parts, unused = _match(shapes, network, wanted)
    found: dict[str, tuple[Piece, ...]] = {name: (Piece(tensor),) for name, tensor in whole.items()}
    for name, by_pattern in parts.items():
        found[name] = _stack(by_pattern, shapes)
    owner: dict[int, str] = {}
    for name in found:
        owner.setdefault(id(wanted[name]), name)
    for name, value in wanted.items():  # a tied parameter is made of what its twin is made of
        if name not in found and id(value) in owner:
            found[name] = found[owner[id(value)]]
    _check(found, shapes, wanted, network)
    return {name: found[name] for name in wanted if name in found}, unused


def _match(shapes: Iterable[str], network: nn.Module, wanted: dict[str, Any]):
    rename, converters = _rules(network, wanted)
    whole: dict[str, str] = {}
    parts: dict[str, dict[int, list[str]]] = {}
    unused: list[str] = []
    for tensor in sorted(shapes, key=_natural):
        name, pattern = rename(tensor)
        if name not in wanted:
            unused.append(tensor)
        elif pattern is None:
            whole[name] = tensor
        else:
            converter = converters[pattern]
            steps = [type(operation).__name__ for operation in converter.operations]
            if steps not in _STACKING:
                raise ModelError(
                    f"`{tensor}` is stored in a form that Secateur cannot read: {' and '.join(steps)} makes `{name}`",
                    "load it in transformers and save it with `save_pretrained(FOLDER, save_original_format=False)`",
                )
            parts.setdefault(name, {}).setdefault(converter.source_patterns.index(pattern), []).append(tensor)
    return whole, parts, unused


def _rules(network: nn.Module, wanted: dict[str, Any]):
    """transformers' own renaming of one stored name, and its converters by pattern; the identity for other networks."""
    if "transformers" not in sys.modules:  # then the network is none of its own, and seconds of importing are saved
        return (lambda tensor: (tensor, None)), {}
    from transformers import PreTrainedModel

    if not isinstance(network, PreTrainedModel):
        return (lambda tensor: (tensor, None)), {}
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(network)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    prefix = network.base_model_prefix

    def rename(tensor: str) -> tuple[str, str | None]:
        name, pattern = rename_source_key(tensor, renamings, converters, prefix, wanted)
        if name not in wanted:  # a rule that fits the name by chance
            plain, _ = rename_source_key(tensor, [], [], prefix, wanted)
            if plain in wanted:
                return plain, None
        return name, pattern

    return rename, {pattern: rule for rule in converters for pattern in rule.source_patterns}


def _stack(by_pattern: Mapping[int, list[str]], shapes: Shapes) -> tuple[Piece, ...]:
    """Experts one after the other; within an expert the patterns in their order (gate, then up)."""
    pieces = []
    start = 0
    for at in sorted(by_pattern):
        rows = shapes[by_pattern[at][0]][0]
        pieces += [Piece(tensor, index, start, start + rows) for index, tensor in enumerate(by_pattern[at])]
        start += rows
    return tuple(sorted(pieces, key=lambda piece: (piece.index, piece.start)))


def _check(found: Sources, shapes: Shapes, wanted: dict[str, Any], network: nn.Module) -> None:
    kind = type(network).__name__
    ignored = [re.compile(p) for p in getattr(network, "_keys_to_ignore_on_load_missing", None) or ()]
    missing = [name for name in wanted if name not in found and not any(p.search(name) for p in ignored)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"the checkpoint lacks `{missing[0]}`{more}, which {kind} needs",
            "config.json and weights are of different models, or the download is incomplete",
        )
    for name, pieces in found.items():
        shape = _shape(pieces, shapes)
        if shape != tuple(wanted[name].shape):
            raise ModelError(
                f"`{pieces[0].tensor}` gives {list(shape)} where {kind} needs {list(wanted[name].shape)} for `{name}`",
                "config.json and weights are of different models",
            )


def _shape(pieces: tuple[Piece, ...], shapes: Shapes) -> tuple[int, ...]:
    first = shapes[pieces[0].tensor]
    if pieces[0].index is None:
        return tuple(first)
    experts = 1 + max(piece.index or 0 for piece in pieces)
    rows = max(piece.stop for piece in pieces)
    whole = sum((piece.stop - piece.start) for piece in pieces) == experts * rows
    same = all(shapes[p.tensor] == (p.stop - p.start, *first[1:]) for p in pieces)
    return (experts, rows, *first[1:]) if whole and same else (len(pieces), *first)


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sorts `experts.2` before `experts.10`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in name.split(".")]
