"""A model, a text and a format, opened together: what surveying and applying both start from."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur import export
from secateur.export import Format
from secateur.export._write import Layout
from secateur.measure.compare import Comparison, sums
from secateur.model.checkpoint import Checkpoint
from secateur.model.disk import atomic
from secateur.model.held import Held
from secateur.model.matrix import place
from secateur.model.parked import States
from secateur.model.pictures import parted, read_pictures
from secateur.model.sides import with_blocks, with_sides
from secateur.model.stream import Stream, device_of
from secateur.model.text import windows
from secateur.model.trunk import Trunk
from secateur.model.whole import Whole
from secateur.parts import edits as edits_
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.each import Each
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.heads import Heads
from secateur.parts.edits.keep import Keep
from secateur.parts.left import Shaping, count, is_bias, narrowed
from secateur.parts.reading import open_uncut, tokenizer_of
from secateur.parts.trunk import length, thinned
from secateur.parts.vision import is_vision, open_vision
from secateur.types import Edit, ExportError, Matrix, ModelError, SecateurError, Unit

#: windows of tokens, or examples with labels
Samples = Any
#: `tell(stage, done, total)`: how far things are
Tell = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Case:
    """Everything about one job that does not depend on the budget. Token windows are `windows x length`."""

    checkpoint: Checkpoint | Held
    stream: Any  # a `Stream`, or a `Whole` where the network is small; samples are what it walks over
    format: Format
    dtype: str  # of most of the model's weights, as a config names it
    calib: Samples  # to gather statistics on
    check: Samples  # to correct the prediction on; empty where there is little text
    held: Samples  # to report on
    device: torch.device
    kinds: tuple[str, ...] = (edits_.BITS,)  # of edits, that menus are to offer
    apart: bool = False  # every unit is a row of the menu, also where two can lose their shape together
    clock: Any = None  # a `Latency`, where seconds are to be priced
    widths: Mapping[str, int] = field(default_factory=dict)  # channels left of an image model's trunks

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What the format can write at all; tensor by tensor, where its runtime reads each on its own."""
        units = (unit for unit in self.stream.anatomy.units if self.format.refuses(unit, Keep()) is None)
        split = getattr(self.format, "tensors_apart", False)
        return tuple(one for unit in units for one in (by_layer(unit) if split else (unit,)))

    @cached_property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """What could have been weights to cut, and why it goes into the file as it is."""
        units = ((unit, self.format.refuses(unit, Keep())) for unit in self.stream.anatomy.units)
        return (*((unit.name, why) for unit, why in units if why), *self.stream.anatomy.skipped)

    @cached_property
    def rest(self) -> tuple[str, ...]:
        """Stored tensors that go into the file as they are: in no unit, in use, and no copies of others."""
        unwanted = ("a copy of", "this architecture")
        dropped = {name for name, why in self.stream.anatomy.skipped if why.startswith(unwanted)}
        cut = {matrix.tensor for unit in self.units for matrix in unit.matrices}
        cut |= {name for unit in self.units for name in (*unit.vectors, *also(unit))}
        return tuple(sorted(set(self.checkpoint.tensors) - cut - dropped))

    @cached_property
    def rows(self) -> Mapping[str, tuple[Unit, ...]]:
        """The units of every row of the menu, by its name: one, all those to which the format gives one edit, or both
        sides of what can lose its shape (of all blocks, where a format holds one shape for all)."""
        groups = self.format.alike(self.units)
        group_of = {name: group for group in groups for name in group}
        found: dict[tuple[str, ...], list[Unit]] = {}
        for unit in self.units:
            key = group_of.get(unit.name, (unit.name,))
            if unit.side is not None and not self.apart:
                alone = shapes_of(self.format) == "any" or unit.side.by == "block"
                key = (unit.side.part if alone else unit.side.part.rpartition(".")[2],)
            found.setdefault(key, []).append(unit)
        return {joined(units).name: tuple(units) for units in found.values()}

    @property
    def rest_layout(self) -> dict[str, Layout]:
        """What `rest` is: types and shapes, as they will be."""
        out: dict[str, Layout] = {}
        for name in self.rest:
            one = self.checkpoint.tensors[name]
            first = (length(name, one.shape[0], self.trunks, self.widths),) if one.shape else ()
            out[name] = one.dtype, (*first, *one.shape[1:])
        return out

    @property
    def shaped(self) -> bool:
        """Whether attentions and MLPs of a language model may get smaller."""
        return any(unit.side is not None for unit in self.units)

    @property
    def resources(self) -> tuple[str, ...]:
        """What a menu prices: FLOPs (of image models where channels can go), KV bytes a token, seconds if asked for."""
        timed = ("seconds",) if self.clock else ()
        if isinstance(self.stream, Whole):
            return ("bytes", "payload", *(("flops",) if self.stream.groups else ()), *timed)
        return ("bytes", "payload", "flops", "kv", *timed)

    @property
    def groups(self) -> Mapping[str, Any]:
        """Coupled layers of an image model whose channels can go."""
        return getattr(self.stream, "groups", {})

    @property
    def trunks(self) -> tuple[Trunk, ...]:
        """Channels of an image model that several layers share, and that can go."""
        return getattr(self.stream, "trunks", ())

    def left(self, unit: Unit, edit: Edit) -> tuple[Unit, Edit]:
        """The unit with the matrices that stay, and the edit that is theirs."""
        left, inner = narrowed(unit, edit)
        return thinned(left, self.trunks, self.widths), inner

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        """Why this unit cannot have this edit, in words; None when it can."""
        if why := _misfit(unit, edit) or _unfit(unit, edit):
            return why
        left, inner = self.left(unit, edit)
        if not left.matrices:
            return getattr(self.format, "keeps", lambda unit: None)(unit)
        return (inner is not edit and _unfit(left, inner)) or self.format.refuses(left, inner)

    def layout(self, unit: Unit, edit: Edit) -> dict[str, Layout]:
        """Every tensor that the file will hold for this unit."""
        left, inner = self.left(unit, edit)
        if not left.matrices:
            return {}
        out = self.format.layout(left, inner, self.dtype_of(unit, edit))
        n, stored = count(unit), self.checkpoint.tensors
        share = Fraction(edit.left(n), n) if n and isinstance(edit, Shaping) else 1
        beside = {name: (stored[name].dtype, _shorter(stored[name].shape, share)) for name in unit.vectors}
        beside |= {name: (stored[name].dtype, stored[name].shape) for name in also(unit)}
        own = self.format.disk.layout_rest({})  # the file's own tensors are no unit's
        return out | {name: one for name, one in self.format.disk.layout_rest(beside).items() if name not in own}

    def flops(self, unit: Unit, edit: Edit) -> int:
        """What a unit computes for one token, or for one example of an image model."""
        left, inner = self.left(unit, edit)
        own = None if getattr(self.format, "dense", False) else getattr(inner, "flops", None)
        pairs = zip(unit.matrices, left.matrices, strict=False)  # nothing is left of what is gone
        whole = left if unit.kind == "experts" else unit  # a token meets as many of few experts as of many
        each = (self.stream.per_weight(whole, m) * (own(one) if own else one.size) for m, one in pairs)
        routed = 2 * count(left) * left.matrices[0].cols if unit.side is not None and unit.side.router else 0
        return round(math.fsum(each)) + routed

    def kv(self, unit: Unit, edit: Edit) -> int:
        """Bytes of keys and values that a token leaves behind for a unit, at 16 bits a number."""
        if unit.side is not None and unit.side.by == "block":  # all of a block's are counted with its first unit
            return self.stream.kv // len(self.stream.blocks) if unit.side.at == 0 and not isinstance(edit, Drop) else 0
        if unit.side is None or unit.side.by != "heads" or unit.side.mixes or isinstance(edit, Drop):
            return 0
        # rows of q, k and v that a KV head takes, of those of the three that this unit has
        widths, n = [width for section in unit.side.per for width in section], count(unit)
        kept = sum(widths[max(0, 1 - unit.side.at) :])
        return 2 * kept * (edit.left(n) if isinstance(edit, Shaping) else n)

    def dtype_of(self, unit: Unit, edit: Edit) -> str:
        """The number type of a unit in the file: kept, it stays as it is, also where that is not the model's."""
        held = {_number_type(self.checkpoint, matrix.tensor) for matrix in unit.matrices}
        if not isinstance(narrowed(unit, edit)[1], Keep):
            return self.dtype
        return held.pop() if len(held) == 1 else "float32"

    def row_units(self) -> tuple[Unit, ...]:
        """The rows of the menu as units."""
        return tuple(joined(units) for units in self.rows.values())

    @cached_property
    def text(self) -> str:
        """A short hash of the windows that statistics are gathered on."""
        return self.stream.digest(self.calib, self.check)


def by_layer(unit: Unit) -> tuple[Unit, ...]:
    """The layers of a unit that runtimes fuse (q, k and v) as units of their own; others stay as they are."""
    if unit.kind != "linear" or len({m.tensor for m in unit.matrices}) < 2:
        return (unit,)
    layers: dict[str, list[Matrix]] = {}
    for matrix in unit.matrices:
        layers.setdefault(place(matrix).module, []).append(matrix)
    return tuple(
        replace(unit, name=name, matrices=tuple(some), **_sided(unit, some, at))
        for at, (name, some) in enumerate(layers.items())
    )


def _sided(unit: Unit, some: Sequence[Matrix], at: int) -> dict[str, Any]:
    """What is of one layer of a unit's side and vectors; what goes with all of it goes with the first."""
    if unit.side is None:
        return {}
    per = tuple(unit.side.per[unit.matrices.index(m)] for m in some) if unit.side.per else ()
    vectors = tuple(name for name in unit.vectors if any(is_bias(name, m) for m in some))
    return {"vectors": vectors, "side": replace(unit.side, at=at, per=per, also=() if at else unit.side.also)}


def joined(units: Sequence[Unit]) -> Unit:
    """Units that must be cut alike as one; its name has a `*` where theirs differ."""
    if len(units) == 1:
        return replace(units[0], side=None)
    words = zip(*(unit.name.split(".") for unit in units), strict=False)
    name = ".".join(same[0] if len(set(same)) == 1 else "*" for same in words)
    vectors = tuple(name for unit in units for name in unit.vectors)
    return Unit(name, units[0].kind, tuple(m for unit in units for m in unit.matrices), units[0].block, vectors)


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
        _shape(stream, format, kinds)
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


def shapes_of(form: Any) -> str:
    """Which shapes a format holds: "any", the "same" in all blocks, or "" for those that the model has."""
    return getattr(form, "shapes", "")


def _shape(stream: Stream, format: str, kinds: Sequence[str]) -> None:
    """Learn which units of a language model lose their shape together."""
    if by_block(format, kinds):
        return _whole_blocks(stream, format)
    if not shapes_of(export.find(format)):
        able = [name for name in export.names() if shapes_of(export.find(name))]
        said = f"the format `{format}` holds a network in its own shape, not with fewer channels, heads or layers"
        raise ExportError(said, f"write {', '.join(able)}, leave whole blocks out (--edits drop), or cap bytes alone")
    stream.anatomy = with_sides(stream.anatomy, stream.network, "experts" in kinds)
    kind = stream.network.config.model_type  # type: ignore[union-attr]
    if not any(unit.side for unit in stream.anatomy.units):
        raise ModelError(f"nothing is known of what channels and heads `{kind}` has", "cap bytes or bits alone")
    among = {unit.side.by for unit in stream.anatomy.units if unit.side}
    if "experts" in kinds and "experts" not in among and set(kinds) != set(edits_.kinds()):  # "all" is what there is
        raise ModelError(f"`{kind}` has no layers of experts that could have fewer", "leave `experts` out of --edits")


def by_block(format: str, kinds: Sequence[str]) -> bool:
    """Whether what can be left out are whole blocks: of a format whose blocks all have one shape, where none is to
    change it."""
    others = {kind for kind in edits_.SHAPES if kind != "drop"}
    return "drop" in kinds and not others & set(kinds) and getattr(export.find(format), "fewer_blocks", False)


def _whole_blocks(stream: Stream, format: str) -> None:
    """Make every block a part that can be left out."""
    stream.anatomy = with_blocks(stream.anatomy)
    if stream.checkpoint.config.get("scale_attn_by_inverse_layer_idx"):
        raise ModelError("its blocks divide by their own number, so that none can go", "leave `drop` out of --edits")
    if format != "safetensors" and any(unit.kind == "experts" for unit in stream.anatomy.units):
        said = f"{format} has one scheme for all experts, so that blocks that have some cannot go one by one"
        raise ExportError(said, "--format safetensors, or leave `drop` out of --edits")


def _unfit(unit: Unit, edit: Edit) -> str | None:
    """Why an edit itself cannot be had by a unit, whatever the format."""
    return edit.refuses(unit) if hasattr(edit, "refuses") else None  # type: ignore[attr-defined]


def _misfit(unit: Unit, edit: Edit) -> str | None:
    """Why a unit cannot lose its shape like this, or None."""
    if not isinstance(edit, Channels | Heads | Experts | Each | Drop) or (
        unit.kind == "channels" and isinstance(edit, Channels)
    ):
        return None
    by = unit.side.by if unit.side else ""
    if isinstance(edit, Channels) and by != "channels":
        return "its channels are not its own to give away"
    if isinstance(edit, Heads) and by != "heads":
        return "it has no heads that could go"
    if isinstance(edit, Experts) and by != "experts":
        return "it has no experts that could go"
    if unit.side is None:
        return "it does not stand beside the residual stream, so it cannot be left out"
    if isinstance(edit, Channels | Heads | Experts) and edit.left(count(unit)) >= count(unit):
        return "it would keep all that it has"
    if isinstance(edit, Drop) and by == "block" and unit.block == 0:
        return "the first block stays, so that there is one"
    if isinstance(edit, Drop) and by == "experts":
        return "a layer of experts can have fewer, but not none"
    if isinstance(edit, Experts) and edit.left(count(unit)) < unit.side.least:
        left, all_, least = edit.left(count(unit)), count(unit), unit.side.least
        return f"it would keep {left} of {all_} experts, and every token is sent to {least}"
    return None


def _shorter(shape: Sequence[int], share: Fraction | int) -> tuple[int, ...]:
    """A tensor with this share of its rows."""
    return (int(shape[0] * share), *shape[1:])


def also(unit: Unit) -> tuple[str, ...]:
    """Stored tensors that go only when all of a unit goes."""
    return unit.side.also if unit.side else ()


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
    """The format where nobody names one."""
    return "packed" if is_vision(model) else "compressed-tensors"


_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def _number_type(checkpoint: Checkpoint | Held, tensor: str) -> str:
    stored = checkpoint.tensors[tensor].dtype
    if stored not in _DTYPES:
        raise ModelError(
            f"`{tensor}` is stored as {stored}, which cannot be cut", "save the model in float16, bfloat16 or float32"
        )
    return _DTYPES[stored]


def _model_type(checkpoint: Checkpoint | Held, stream: Any) -> str:
    """The number type that holds most of the weights that can be cut."""
    sizes: Counter[str] = Counter()
    for unit in stream.anatomy.units:
        for matrix in unit.matrices:
            sizes[_number_type(checkpoint, matrix.tensor)] += matrix.size
    if not sizes:
        raise ModelError(f"{checkpoint.folder} holds no matrix that can be cut", "`secateur inspect` says why")
    return max(sizes, key=lambda name: (sizes[name], name))


def compare(
    case: Case,
    windows: Samples,
    plain: States,
    cut: States,
    put: Mapping[Matrix, Tensor],
    see: Callable[[Tensor], None] = lambda logits: None,
) -> Comparison:
    """The cut network against the network as it is, from the states behind their last blocks; `put` are the matrices
    that are cut outside the blocks. `see` gets the cut network's logits, some windows at a time."""
    out, step = Comparison(), case.stream.windows(plain.shape[1])
    with torch.no_grad(), _tails(case, put) as tails:
        for start in range(0, len(windows), step):
            some = slice(start, start + step)
            theirs, ours = tails(plain[some].to(case.device), cut[some].to(case.device))
            scored, labels = case.stream.answers(ours, windows[some])
            out.add(sums(scored, labels, case.stream.answers(theirs, windows[some])[0]), labels.shape[1])
            see(ours)
    return out


@contextmanager
def _tails(case: Case, put: Mapping[Matrix, Tensor]) -> Iterator[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Logits of both networks; only one head is in memory at a time."""
    stream = case.stream
    put = {m: w for m, w in put.items() if stream.anatomy.tied or place(m).module != stream.anatomy.embedding}

    def both(plain: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        with stream.tail() as tail:
            theirs = tail(plain)
        with stream.tail(put) as tail:
            return theirs, tail(cut)

    if put:
        yield both
    else:
        with stream.tail() as tail:
            yield lambda plain, cut: (tail(plain), tail(cut))


def work_folder(out: Path, resume: bool, key: Mapping[str, Any]) -> tuple[Path, bool]:
    """Where unfinished work lies, and whether this job left some. That of another job (its key differs) goes first."""
    work, said = out / ".work", json.dumps(key, sort_keys=True, default=str)
    job = work / "job.json"
    try:
        taken_up = resume and job.exists() and job.read_text() == said
        if work.exists() and not taken_up:
            shutil.rmtree(work)
        if not taken_up:
            with atomic(job) as file:
                file.write(said.encode())
    except OSError as error:
        raise SecateurError(f"cannot write to {out}: {error.strerror}", "give another folder with -o") from error
    return work, taken_up


def about(case: Case, **more: Any) -> dict[str, Any]:
    """What a menu or a plan must remember of the job it belongs to."""
    return {
        "model": str(case.checkpoint.folder),
        "fingerprint": case.checkpoint.fingerprint,
        "format": case.format.name,
        "dtype": case.dtype,
        **({"folded": n} if (n := folds(case)) else {}),
        **more,
    }


def folds(case: Case) -> int:
    """How many normalisations become part of the layer before them, where a format has none of its own."""
    return len(getattr(case.format, "folded", ()))
