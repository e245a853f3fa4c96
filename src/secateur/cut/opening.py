"""Opening a case: the model, its text or its pictures in three parts, and what of it can lose its shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from secateur import export
from secateur.cut.case import Case, number_type, shapes_of
from secateur.export._widths import untold
from secateur.model.anatomy import anatomy
from secateur.model.checkpoint import Checkpoint
from secateur.model.held import Held
from secateur.model.load import skeleton
from secateur.model.pictures import parted, read_pictures
from secateur.model.sides import with_blocks, with_sides
from secateur.model.stream import Stream, device_of
from secateur.model.text import windows
from secateur.model.whole import Whole
from secateur.parts import edits as edits_
from secateur.parts.edits.int import Int
from secateur.parts.reading import open_uncut, tokenizer_of
from secateur.parts.vision import is_vision, open_vision
from secateur.types import ExportError, ModelError


def open_case(
    model: str,
    data: str,
    format: str,
    samples: int | None,
    seq_len: int | None,
    seed: int,
    device: str | None,
    kinds: tuple[str, ...] = (edits_.BITS,),
) -> Case:
    """Open a model and cut a text into windows: four fifths to calibrate, the rest to correct the prediction, and as
    many again held back to report on. `samples` not said are 128 windows, or up to 4,000 pictures. `kinds` of edits are
    what a menu will offer; with "channels", layers of an image model whose channels can go are units of their own."""
    at = device_of(device)
    if is_vision(model):
        return _of_pictures(model, data, format, samples, seed, at, kinds)
    samples = 128 if samples is None else samples
    checkpoint = open_uncut(model)
    stream = Stream(checkpoint, at)
    if any(kind in kinds for kind in edits_.SHAPES):
        kinds = _shape(stream, format, kinds)
    config = checkpoint.config
    dtype = _model_type(checkpoint, stream)
    form = export.find(format, {**config, "dtype": dtype}, stream.anatomy, checkpoint)
    context = config.get("max_position_embeddings") or config.get("n_positions")
    more = max(samples // 4, 8)
    words, size = tokenizer_of(checkpoint), config.get("vocab_size")
    calib, held = windows(data, words, samples + more, seq_len, seed, context=context, vocabulary=size)
    every = max(2, len(calib) // max(1, min(more, len(calib) // 5)))
    mine = torch.arange(len(calib)) % every == every - 1
    return Case(checkpoint, stream, form, dtype, calib[~mine], calib[mine], held, at, kinds)


def _shape(stream: Stream, format: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Learn which units of a language model lose their shape together; the kinds of edits that it can have."""
    shapes = shapes_of(export.find(format))
    if not shapes:
        able = [name for name in export.names() if shapes_of(export.find(name))]
        said = f"the format `{format}` holds a network in its own shape, not with fewer channels, heads or layers"
        raise ExportError(said, f"write {', '.join(able)}, or cap bytes alone")
    why = untold(stream.checkpoint.config) if shapes == "same" else None
    if why and "heads" in kinds:
        kinds = tuple(one for one in kinds if one != "heads")
        if not set(kinds) & set(edits_.SHAPES):
            raise ExportError(why, "--format packed or torch-export, or leave `heads` out of --edits")
        stream.anatomy = replace(stream.anatomy, skipped=(*stream.anatomy.skipped, ("fewer heads", why)))
    others = {kind for kind in edits_.SHAPES if kind != "drop"} & set(kinds)
    if others or shapes == "any":
        stream.anatomy = with_sides(stream.anatomy, stream.network, "experts" in kinds, not why)
    if shapes == "same" and "drop" in kinds:
        why = _no_blocks(stream, format)
        if why and not others:
            raise why
        if why:
            stream.anatomy = replace(stream.anatomy, skipped=(*stream.anatomy.skipped, ("whole blocks", why.message)))
            kinds = tuple(kind for kind in kinds if kind != "drop")
        else:
            stream.anatomy = with_blocks(stream.anatomy)
    kind = stream.network.config.model_type  # type: ignore[union-attr]
    if not any(unit.side for unit in stream.anatomy.units):
        raise ModelError(f"nothing is known of what channels and heads `{kind}` has", "cap bytes or bits alone")
    among = {unit.side.by for unit in stream.anatomy.units if unit.side}
    if "experts" in kinds and "experts" not in among and set(kinds) != set(edits_.kinds()):  # "all" is what there is
        raise ModelError(f"`{kind}` has no layers of experts that could have fewer", "leave `experts` out of --edits")
    return kinds


def _no_blocks(stream: Stream, format: str) -> ModelError | ExportError | None:
    """Why no block of a model can be left out, of a file whose blocks all have one shape."""
    if stream.checkpoint.config.get("scale_attn_by_inverse_layer_idx"):
        return ModelError("its blocks divide by their own number, so that none can go", "leave `drop` out of --edits")
    if format != "safetensors" and any(unit.kind == "experts" for unit in stream.anatomy.units):
        said = f"{format} has one scheme for all experts, so that blocks that have some cannot go one by one"
        return ExportError(said, "--format safetensors, or leave `drop` out of --edits")
    return None


def _of_pictures(
    model: str, data: str, format: str, samples: int | None, seed: int, device: torch.device, kinds: tuple[str, ...]
) -> Case:
    """An image model and its examples."""
    if not getattr(export.find(format), "pictures", False):
        able = [name for name in export.names() if getattr(export.find(name), "pictures", False)]
        hint = f"image models are written as {', '.join(able)}"
        raise ExportError(f"the format `{format}` does not hold image models yet", hint)
    seen = open_vision(model, cut=False)
    classes = seen.classes()
    calib, check, held = parted(read_pictures(data, classes), samples, seed)
    seen.prepare(calib.x[:1])  # what the network cannot take is said now
    stream = Whole(seen.held, seen.network, seen.prepare, classes, device, "channels" in kinds)
    if "channels" in kinds and not stream.groups:
        raise _nothing_to_take(model, stream.uncoupled)
    _model_type(seen.held, stream)
    # codes need scales of 16 bits whatever the weights came in; a format of plain tensors keeps the weights' own type
    dtype = "float16" if format in ("packed", "torch-export") else "float32"
    pictures = {"network": seen.network, "prepare": seen.prepare, "examples": calib}
    form = export.find(format, {**seen.held.config, "dtype": dtype}, stream.anatomy, seen.held, **pictures)
    return Case(seen.held, stream, form, dtype, calib, check, held, device, kinds)


def _nothing_to_take(model: str, why: Mapping[str, str]) -> ModelError:
    """No channels can go: why, said once where it is the same for all layers."""
    hint = "cap bytes or bits per weight instead"
    if len(set(why.values())) == 1:
        (said,) = set(why.values())
        traced = "; a `forward` that branches on what it computes cannot be followed" if "traced" in said else ""
        return ModelError(f"no channels of {model} can be taken away: {said}", hint + traced)
    some = "; ".join(f"`{path}`: {reason}" for path, reason in list(why.items())[:3])
    return ModelError(f"no channels of {model} can be taken away ({some})", hint)


def usual_format(model: str) -> str:
    """The format where nobody names one: what transformers loads, if it can hold half of what is to be cut."""
    if is_vision(model):
        return "packed"
    checkpoint = open_uncut(model)
    found = anatomy(checkpoint, skeleton(checkpoint))
    form = export.find("compressed-tensors", checkpoint.config, found, checkpoint)
    held = sum(unit.size for unit in found.units if form.refuses(unit, Int(8, 0)) is None)
    return form.name if 2 * held >= sum(unit.size for unit in found.units) else "packed"


def _model_type(checkpoint: Checkpoint | Held, stream: Any) -> str:
    """The number type that holds most of the weights that can be cut."""
    sizes: Counter[str] = Counter()
    for unit in stream.anatomy.units:
        for matrix in unit.matrices:
            sizes[number_type(checkpoint, matrix.tensor)] += matrix.size
    if not sizes:
        raise ModelError(f"{checkpoint.folder} holds no matrix that can be cut", "`secateur inspect` says why")
    return max(sizes, key=lambda name: (sizes[name], name))
