"""Nearest rounding by hand for every edit, and tiny models cut with it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from secateur.export import Finished, Format, Parts, find
from secateur.export._write import layout_of
from secateur.maths.forms import is_form
from secateur.maths.grids import Coded
from secateur.model.anatomy import Anatomy, anatomy, load_block, skeleton
from secateur.model.checkpoint import Checkpoint, open_checkpoint
from secateur.model.matrix import put, view
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4
from secateur.types import Edit, Plan, Unit

SIZES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def round_nearest(w: Tensor, edit: Edit, dtype: str) -> Coded:
    """One matrix [rows, cols] on the grid of an edit; scales of every second group are negative where they may be."""
    w = w.float()
    if is_form(form := edit.grid(dtype)):
        done = form.settle(w, torch.eye(w.shape[1]), None, 2)
        return done.grid.code(done.values)
    tensors = {"values": w}
    if isinstance(edit, Int):
        tensors = _int(w, edit, torch.float8_e4m3fn if edit.scale else getattr(torch, dtype))
    elif isinstance(edit, Fp8):
        scale = (w.abs().amax(1, keepdim=True) / 448).clamp_min(1e-6).to(getattr(torch, dtype))
        tensors = {"codes": (w / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn), "scale": scale}
    elif isinstance(edit, Mxfp4):
        exponent = (w.unflatten(1, (-1, 32)).abs().amax(-1).clamp_min(1e-9).log2().floor() - 2).to(torch.int16)
        codes = _fp4(w / 2.0 ** exponent.float().repeat_interleave(32, 1))
        tensors = {"codes": codes, "scale": (exponent + 127).to(torch.uint8)}
    elif isinstance(edit, Nvfp4):
        whole = (448 * 6 / w.abs().amax()).reshape(1)
        scale = (w.unflatten(1, (-1, 16)).abs().amax(-1) / 6 * whole).clamp(0.01, 448).to(torch.float8_e4m3fn)
        codes = _fp4(w / (scale.float() / whole).repeat_interleave(16, 1))
        tensors = {"codes": codes, "scale": scale, "global_scale": whole}
    return Coded(edit.decode(tensors), tensors)


def _int(w: Tensor, edit: Int, dtype: torch.dtype) -> dict[str, Tensor]:
    group = edit.group or w.shape[1]
    x = w.unflatten(1, (-1, group))
    top = 2**edit.bits - 1
    if edit.zero:
        middle = 2 ** (edit.bits - 1)
        scale = ((x.amax(-1) - x.amin(-1)) / top).clamp_min(2**-6).to(dtype)
        zero = (-middle - x.amin(-1) / scale.float()).to(torch.float8_e4m3fn)
        codes = (x / scale.float()[..., None] + zero.float()[..., None]).round().clamp(-middle, middle - 1)
        return {"codes": codes.flatten(1).to(torch.int8), "scale": scale, "zero": zero}
    if edit.symmetric:
        sign = 1 - 2.0 * (torch.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2]) % 2)
        scale = (sign * (x.abs().amax(-1) / 2 ** (edit.bits - 1)).clamp_min(2**-9)).to(dtype)
        codes = (x / scale.float()[..., None]).round().clamp(-(top + 1) // 2, top // 2)
        return {"codes": codes.flatten(1).to(torch.int8), "scale": scale}
    low = x.amin(-1).clamp_max(0)
    scale = ((x.amax(-1).clamp_min(0) - low) / top).clamp_min(2**-6).to(dtype)
    zero = (-low / scale.float()).round().clamp(0, top)
    codes = ((x / scale.float()[..., None]).round() + zero[..., None]).clamp(0, top)
    return {"codes": codes.flatten(1).to(torch.int16), "scale": scale, "zero": zero.to(torch.int16)}


def _fp4(x: Tensor) -> Tensor:
    near = (x.abs()[..., None] - SIZES).abs().argmin(-1)
    return (near + 8 * (x < 0)).to(torch.uint8)


@dataclass(frozen=True)
class Cut:
    """A model cut and written by hand: the folder, what should be read from it, and what it was priced at."""

    folder: Path
    format: Format
    plan: Plan
    units: tuple[Unit, ...]
    anatomy: Anatomy
    values: dict[str, Tensor]
    logits: Tensor
    tokens: Tensor
    layouts: dict


def cut_by_hand(
    source: Path, out: Path, name: str, choose: Callable[[Format, Unit], Edit], pieces: Callable | None = None
) -> Cut:
    """The whole way without planner or rounder: every unit gets the edit that `choose` says, rounded to nearest."""
    checkpoint = open_checkpoint(source)
    empty = skeleton(checkpoint)
    body = anatomy(checkpoint, empty)
    network = load_block(checkpoint, body, "", empty)
    form = find(name, checkpoint.config, body, checkpoint)
    dtype = str(checkpoint.config.get("dtype") or "float32")
    plan = Plan({unit.name: choose(form, unit) for unit in body.units}, {}, 0.0, 0.0, 0.0)
    tensors, layouts, values = _rest(checkpoint, body), {}, {}
    for unit in body.units:
        edit = plan.edits[unit.name]
        assert form.refuses(unit, edit) is None, (unit.name, edit, form.refuses(unit, edit))
        coded = {m.key: round_nearest(view(network, m), edit, dtype) for m in unit.matrices}
        for m in unit.matrices:
            values[m.key] = form.seen(unit, edit, coded[m.key].values, dtype)
            put(network, m, values[m.key])
        layouts |= form.layout(unit, edit, dtype)
        tensors |= form.encode(unit, edit, coded, dtype)
    layouts |= {name: layout_of(tensor) for name, tensor in tensors.items() if name not in layouts}
    parts = Parts(out / ".parts")
    parts.save("all", tensors)
    form.disk.write(Finished(parts, ("all",), body.units, plan.edits), out)
    parts.clear()
    form.finish(out, checkpoint.config, plan, body.units)
    tokens = torch.arange(3, 27).reshape(2, 12)
    with torch.no_grad():
        logits = network(tokens).logits
    return Cut(out, form, plan, body.units, body, values, logits, tokens, layouts)


def _rest(checkpoint: Checkpoint, body: Anatomy) -> dict[str, Tensor]:
    copies = {name for name, why in body.skipped if "a copy of" in why}
    return {name: checkpoint.read(name) for name in body.rest if name not in copies}


def rotate(*edits: Edit) -> Callable[[Format, Unit], Edit]:
    """Hands out the edits in turn, to each unit the next that its format does not refuse; alike units get the same."""
    state = {"at": 0, "experts": None}

    def choose(form: Format, unit: Unit) -> Edit:
        if unit.kind == "experts" and form.alike((unit, unit)) and state["experts"] is not None:
            return state["experts"]
        for i in range(len(edits)):
            edit = edits[(state["at"] + i) % len(edits)]
            if form.refuses(unit, edit) is None:
                state["at"] += i + 1
                if unit.kind == "experts":
                    state["experts"] = edit
                return edit
        return Keep()

    return choose


@pytest.fixture(scope="session")
def cutter():
    """`cutter(source, out, format, choose)` cuts by hand; `cutter.rotate(*edits)` makes a chooser."""
    cut_by_hand.rotate = rotate
    cut_by_hand.round = round_nearest
    return cut_by_hand


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """`tiny("llama", "bfloat16")` -> the folder of a tiny random model, as the tests of `model/` make them."""
    families = runpy.run_path(str(Path(__file__).parent.parent / "model" / "conftest.py"))
    made: dict[tuple, Path] = {}

    def get(name: str, dtype: str = "float32", **kwargs) -> Path:
        key = (name, dtype, repr(sorted(kwargs.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("tiny") / name
            torch.manual_seed(sum(map(ord, name)))
            config = families["CONFIGS"][name]()
            for field, value in {"hidden_size": 64, "intermediate_size": 96, **kwargs}.items():
                if hasattr(config, field):
                    setattr(config, field, value)
            _make(config, dtype, folder)
            made[key] = folder
        return made[key]

    return get


def _make(config, dtype: str, folder: Path) -> None:
    import transformers

    network = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.to(getattr(torch, dtype)).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == dtype
