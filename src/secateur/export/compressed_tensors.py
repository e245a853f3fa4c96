"""compressed-tensors: what vLLM and transformers load. Any mix of integer widths, FP8, MXFP4 and NVFP4 in one file.

Written in plain torch; the library of that name is only the reader that `verify` asks. What the installed reader takes
was found by trying (docs/guides/formats.md) and decides what is refused here:

- integers are packed densely, 2 to 8 bits, in any group that divides the row; a scale may be negative, and of any type;
- embeddings only at 8 bits, unpacked: transformers looks for `weight` on them;
- 4-bit floats are decoded to bfloat16 whatever is asked, so only bfloat16 models can run with them;
- one scheme for all experts of the model;
- packed zero points are refused by transformers 5.23; there each is a byte, as in blocks of 1 x group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateur.export._codecs import Codec, Fp4Groups, codec
from secateur.export._dense import FLOATS, dense_encode, dense_layout, dense_refuses, is_plain, plain_type
from secateur.export._experts import separate
from secateur.export._menu import usual
from secateur.export._shards import Shards
from secateur.export._verify import verify_in_transformers, zeros_that_reload
from secateur.export._widths import widths
from secateur.export._write import Layout, write_config
from secateur.maths.grids import Coded
from secateur.model.anatomy import Anatomy
from secateur.model.load import SMALLER
from secateur.model.matrix import place
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.half import Half
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4
from secateur.types import Edit, ExportError, Matrix, Plan, Unit

#: experts in the file are modules `...experts.N...`; the reader looks for "experts" in the pattern of their group
EXPERTS = r"re:.*[.]experts[.]\d+[.].*"


@dataclass(frozen=True)
class Stored:
    """A matrix, or some rows of it, as a module of the file: `base` + `.weight_packed` and so on."""

    base: str
    matrix: Matrix
    start: int
    stop: int


@dataclass(frozen=True)
class CompressedTensors:
    """`dtype` is the model's; `tied` the path of a head that multiplies by the embedding's matrix, if there is one.

    `zeros` is how zero points are stored: "packed" as the format's makers do, "bytes", or "" for whichever of the two
    the installed reader takes (tried once, when first needed). `only` are the edits of a narrower reader (`vllm.py`).
    `anatomy` is the model's, whose sizes may ask for groups of their own.
    """

    dtype: str = "bfloat16"
    tied: str = ""
    model_type: str = ""
    zeros: str = ""
    name: str = "compressed-tensors"
    only: tuple[Edit, ...] = ()
    anatomy: Anatomy | None = None
    disk: ClassVar[Shards] = Shards()
    shapes: ClassVar[str] = "same"

    def edits(self) -> tuple[Edit, ...]:
        return self.only or usual(self.anatomy)

    def refuses(self, unit: Unit, edit: Edit) -> str | None:
        if isinstance(edit, Keep):
            return dense_refuses(unit)
        if isinstance(edit, Half):
            odd = "transformers decodes experts by one scheme, and plain numbers are none"
            return odd if unit.kind == "experts" else dense_refuses(unit)
        if codec(edit) is None:
            return "compressed-tensors has no such grid"
        if self.only and edit not in self.only:
            return f"{self.name} has no kernel for it"
        if self.only and unit.kind == "embedding":
            return f"{self.name} leaves embeddings as they are"
        return self._refuses_unit(unit) or self._refuses_kind(unit, edit) or self._refuses_edit(unit, edit)

    def alike(self, units: Sequence[Unit]) -> tuple[tuple[str, ...], ...]:
        """Groups of units that must get one and the same edit: all experts of the model, to whom one scheme applies."""
        experts = tuple(unit.name for unit in units if unit.kind == "experts")
        return (experts,) if len(experts) > 1 else ()

    def layout(self, unit: Unit, edit: Edit, dtype: str) -> dict[str, Layout]:
        if is_plain(edit):
            return dense_layout(unit, plain_type(edit, dtype))
        how = self._codec(unit, edit)
        out: dict[str, Layout] = {}
        for one in self._stored(unit):
            parts = how.layout(one.stop - one.start, one.matrix.cols, FLOATS[dtype])
            out.update({f"{one.base}.{part}": layout for part, layout in parts.items()})
        return out | {twin: out[part] for twin, part in self._twins(unit, how)}

    def encode(self, unit: Unit, edit: Edit, coded: Mapping[str, Coded], dtype: str) -> dict[str, Tensor]:
        if is_plain(edit):
            return dense_encode(unit, coded, plain_type(edit, dtype))
        how = self._codec(unit, edit)
        out: dict[str, Tensor] = {}
        for one in self._stored(unit):
            tensors = coded[one.matrix.key].tensors
            rows = {k: t if k == "global_scale" else t[one.start : one.stop] for k, t in tensors.items()}
            parts = how.encode(rows, FLOATS[dtype])
            out.update({f"{one.base}.{part}": tensor.contiguous() for part, tensor in parts.items()})
        return out | {twin: out[part] for twin, part in self._twins(unit, how)}

    def seen(self, unit: Unit, edit: Edit, values: Tensor, dtype: str) -> Tensor:
        """4-bit floats come as bfloat16; experts come in the type of their scales, except FP8, which comes exactly."""
        if isinstance(edit, Mxfp4 | Nvfp4):
            return values.bfloat16().float()
        if unit.kind == "experts" and isinstance(edit, Int):
            return values.to(getattr(torch, dtype)).float()
        return values

    def finish(self, folder: Path, config: Mapping[str, Any], plan: Plan, units: Sequence[Unit]) -> None:
        """Write config.json, last of all: a folder that has one is complete."""
        own = {key: value for key, value in config.items() if key not in ("quantization_config", SMALLER)}
        own |= widths(config, config[SMALLER]["shapes"]) if SMALLER in config else {}
        if any(unit.kind == "head" for unit in units):  # it is cut on its own, so nothing may tie it to the embedding
            own["tie_word_embeddings"] = False
        about = self.quantization_config(plan.edits, units, _left_alone(folder))
        write_config(folder, own | ({"quantization_config": about} if about else {}))

    def verify(self, folder: Path, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        return verify_in_transformers(folder, reference_logits, tokens)

    def quantization_config(
        self, edits: Mapping[str, Edit], units: Sequence[Unit], ignore: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        """The `quantization_config` of config.json: a group for every edit in use, its modules by name."""
        self._one_scheme_for_experts(edits, units)
        groups: dict[str, dict[str, Any]] = {}
        for unit in units:
            if not is_plain(edits[unit.name]):
                scheme = self._codec(unit, edits[unit.name]).scheme()
                group = groups.setdefault(json.dumps(scheme, sort_keys=True), {"targets": [], **scheme})
                group["targets"] += [name for name in self._targets(unit) if name not in group["targets"]]
        if not groups:
            return None
        experts = [edits[unit.name] for unit in units if unit.kind == "experts"]
        if experts and all(isinstance(edit, Keep) for edit in experts):
            # without a group of their own the reader decodes kept experts by another's, and loses them
            groups["experts"] = {"targets": [EXPERTS], **self._codec(units[0], Fp8()).scheme()}
        formats = sorted({group["format"] for group in groups.values()})
        return {
            "quant_method": "compressed-tensors",
            "format": formats[0] if len(formats) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "config_groups": {f"group_{i}": group for i, group in enumerate(groups.values())},
            "ignore": list(ignore),
            "kv_cache_scheme": None,
            "global_compression_ratio": None,
        }

    def _refuses_unit(self, unit: Unit) -> str | None:
        if unit.kind == "conv":
            return "compressed-tensors holds linear layers and embeddings, not convolutions"
        if any(m.transposed for m in unit.matrices):
            return (
                "compressed-tensors holds matrices stored outputs x inputs, and this one is stored the other way round"
            )
        if any(self._names(m) == () for m in unit.matrices):
            return "all experts are stored in one tensor, and compressed-tensors has no names for one of them"
        if any(m.index is None and not m.tensor.endswith(".weight") for m in unit.matrices):
            return "compressed-tensors holds the weights of modules, and this tensor is not called `weight`"
        return None

    def _refuses_kind(self, unit: Unit, edit: Edit) -> str | None:
        eight = isinstance(edit, Fp8) or (isinstance(edit, Int) and edit.bits == 8 and not edit.zero)
        if unit.kind == "embedding" and not eight:
            return "transformers reads an embedding at 8 bits or not at all"
        plain = isinstance(edit, Fp8 | Mxfp4) or (isinstance(edit, Int) and edit.symmetric and not edit.scale)
        if unit.kind == "experts" and not plain:
            return "transformers decodes experts from codes and one kind of scale alone"
        return None

    def _refuses_edit(self, unit: Unit, edit: Edit) -> str | None:
        how = self._codec(unit, edit)
        odd = sorted({m.cols for m in unit.matrices if how.group and m.cols % how.group})
        if odd:
            return f"rows of {odd[0]} do not divide into groups of {how.group}"
        if isinstance(how, Fp4Groups) and self.dtype != "bfloat16":
            return f"its readers decode 4-bit floats to bfloat16 only, and this model is {self.dtype}"
        if isinstance(edit, Int) and not edit.symmetric and unit.kind != "embedding":
            if self._zeros() is None:
                return "the installed transformers does not read zero points"
            if not edit.group and (edit.zero or self._zeros() == "bytes"):
                return "the installed transformers does not read a zero point for a whole row"
        return None

    def _codec(self, unit: Unit, edit: Edit) -> Codec:
        asks = isinstance(edit, Int) and not edit.symmetric
        found = codec(edit, unit.kind == "embedding", (self._zeros() if asks else None) or "packed")
        if found is None:
            raise ExportError(
                f"compressed-tensors cannot hold {edit} for `{unit.name}`", "choose another edit or format"
            )
        return found

    def _zeros(self) -> str | None:
        return self.zeros or zeros_that_reload()

    def _names(self, matrix: Matrix) -> tuple[str, ...] | None:
        """The file's names for one expert of a stack; None for a matrix that has a tensor of its own."""
        return None if matrix.index is None else separate(self.model_type, matrix.tensor, matrix.index)

    def _stored(self, unit: Unit) -> Iterator[Stored]:
        for matrix in unit.matrices:
            names = self._names(matrix) or (matrix.tensor,)
            rows = matrix.rows // len(names)
            for i, name in enumerate(names):
                yield Stored(name.removesuffix(".weight"), matrix, i * rows, (i + 1) * rows)

    def _twins(self, unit: Unit, how: Codec) -> Iterator[tuple[str, str]]:
        """What a tied head needs of its own, and the embedding's part that it repeats. The codes are there once."""
        if self.tied and unit.kind == "embedding":
            base = unit.matrices[0].tensor.removesuffix(".weight")
            yield from ((f"{self.tied}.{part}", f"{base}.{part}") for part in how.shared)

    def _targets(self, unit: Unit) -> Iterator[str]:
        """Names of modules, as the network has them and as the file does; a pattern for experts."""
        if unit.kind == "experts":
            yield EXPERTS
            return
        for matrix in unit.matrices:
            yield place(matrix).module
            yield matrix.tensor.removesuffix(".weight")
        if self.tied and unit.kind == "embedding":
            yield self.tied

    def _one_scheme_for_experts(self, edits: Mapping[str, Edit], units: Sequence[Unit]) -> None:
        chosen = {edits[name]: name for group in self.alike(units) for name in group}
        if len(chosen) > 1:
            (one, first), (other, second), *_ = chosen.items()
            raise ExportError(
                f"`{first}` is to be {one} and `{second}` {other}, but transformers reads one scheme for all experts",
                "give all experts the same edit",
            )


def asymmetric_reloads() -> bool:
    """Whether the installed transformers reads integers with zero points. Tries it once, on a tiny model."""
    return zeros_that_reload() is not None


def _left_alone(folder: Path) -> list[str]:
    """Modules with a plain matrix in the finished files: vLLM wants them named."""
    from secateur.model.checkpoint import open_tensors

    entries = open_tensors(folder)
    plain = [name for name, entry in entries.items() if len(entry.shape) == 2 and entry.dtype in FLOATS.values()]
    whole = [name for name in plain if name.endswith(".weight") and f"{name}_scale" not in entries]
    return sorted(name.removesuffix(".weight") for name in whole)
