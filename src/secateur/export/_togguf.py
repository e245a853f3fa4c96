"""A model as it is, cut or not, as one GGUF file: every matrix in the numbers that it has, 16 bits as a rule.

Here the blocks of a Llama may differ, in their heads and in the width of their MLP: llama.cpp runs that under the name
`deci`, and transformers builds no such network, so nothing is asked of it.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from secateur.export import Finished, Parts
from secateur.export.gguf import Gguf
from secateur.maths.grids import Coded
from secateur.model.anatomy import Anatomy, anatomy, skeleton
from secateur.model.checkpoint import DTYPES
from secateur.parts.edits.keep import Keep
from secateur.parts.gguf.names import ARCHS
from secateur.parts.reading import Reading
from secateur.types import Matrix


def to_gguf(reading: Reading, out: Path) -> dict[str, Any]:
    """Write the file and see it run: `format`, `files`, `bytes_on_disk`, and what verifying found."""
    model: Any = reading
    stacked = getattr(ARCHS.get(str(reading.config.get("model_type"))), "renormed", None) is not None
    form = Gguf(model, anatomy(model, skeleton(model)) if stacked else None)  # experts are found in an anatomy alone
    body = None if form.uneven else form.anatomy or anatomy(model, skeleton(model))
    form = form if body is None else Gguf(model, body)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".work-") as place:
        parts, names = Parts(Path(place)), _wanted(form, body)
        turned = {m.tensor for unit in body.units for m in unit.matrices if m.transposed} if body else set()
        for at, name in enumerate(names):
            x = reading.read(name).to(DTYPES[reading.tensors[name].dtype])
            parts.save(str(at), form.kept(name, x.T if name in turned else x))
        experts = [unit for unit in body.units if unit.kind == "experts"] if body else []
        for unit in experts:
            coded = {m.key: Coded(_matrix(reading, m), {}) for m in unit.matrices}
            kind = str(DTYPES[reading.tensors[unit.matrices[0].tensor].dtype]).removeprefix("torch.")
            parts.save(unit.name, form.encode(unit, Keep(), coded, kind))
        parts.save("own", form.encode_rest({}))
        pieces = (*map(str, range(len(names))), *(unit.name for unit in experts), "own")
        files = form.write(Finished(parts, pieces, (), {}), out)
    length = min(16, form.metadata[f"{form.arch.name}.context_length"])
    tokens = torch.arange(2 * length).reshape(2, length) % form.metadata[f"{form.arch.name}.vocab_size"]
    return {
        "format": form.name,
        "files": [file.name for file in files],
        "bytes_on_disk": form.priced(files),
        **form.verify(out, _logits(reading, tokens) if form.uneven else None, tokens),
    }


def _matrix(reading: Reading, matrix: Matrix) -> Tensor:
    """One matrix, rows x cols, of a tensor of its own or of a stack."""
    at = matrix.index
    return reading.read(matrix.tensor) if at is None else reading.read(matrix.tensor, (at, at + 1))[0]


def _logits(reading: Reading, tokens: Tensor) -> Tensor:
    """What a Llama of uneven blocks computes: transformers' network with every layer as wide as it is stored."""
    model: Any = reading
    network: Any = skeleton(model)
    for name in reading.tensors:
        owner = network.get_submodule(name.rpartition(".")[0])
        owner._parameters[name.rpartition(".")[2]] = nn.Parameter(reading.read(name).float(), requires_grad=False)
    if "lm_head.weight" not in reading.tensors:
        network.lm_head.weight = network.model.embed_tokens.weight
    for block in network.model.layers:
        attention = block.self_attn
        attention.num_key_value_groups = len(attention.q_proj.weight) // len(attention.k_proj.weight)
    with torch.no_grad():
        return network(tokens).logits


def _wanted(form: Gguf, body: Anatomy | None) -> list[str]:
    copies = {name for name, why in body.skipped if why.startswith("a copy of")} if body else set()
    return [name for name in form.names if name not in copies]
