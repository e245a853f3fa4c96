"""A model too large for memory is read by the real runtime all the same, a few blocks at a time."""

from __future__ import annotations

import gc
import json
import re
import weakref
from functools import partial

import pytest

from secateur.export import _slices as slices
from secateur.export import _verify as reading
from secateur.export._slices import verify_in_slices, write_slice
from secateur.model.checkpoint import open_checkpoint, open_tensors
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import ExportError

pytest.importorskip("compressed_tensors")
MIX = (Int(3, 32), Fp8(), Int(8, 32), Int(2, 32, symmetric=False), Keep())


@pytest.fixture
def watched(monkeypatch):
    """The slices that were read, as (first, last + 1)."""
    seen = []

    def spied(checkpoint, start, stop, out):
        seen.append((start, stop))
        write_slice(checkpoint, start, stop, out)

    monkeypatch.setattr(slices, "write_slice", spied)
    return seen


@pytest.mark.parametrize(
    "family", ["llama", "llama-tied", "qwen3", "gemma3", "gpt_neox", "opt", "mixtral", "qwen2_moe"]
)
def test_every_slice_reloads(tiny, cutter, tmp_path, family, watched):
    cut = cutter(tiny(family, "bfloat16"), tmp_path, "compressed-tensors", cutter.rotate(*MIX))
    found = cut.format.verify(tmp_path, None, cut.tokens)
    assert found["logit_error"] < 1e-5 and found["verified_in"].endswith("in slices")
    assert watched == [(0, 2)]
    watched.clear()
    assert verify_in_slices(tmp_path, cut.tokens, room=1)["logit_error"] < 1e-5
    assert watched == [(0, 1), (1, 2)]
    assert not list(tmp_path.glob(".slice-*"))


def test_slices_are_as_large_as_there_is_room(tiny, cutter, tmp_path, watched):
    cut = cutter(tiny("llama", "float16", num_hidden_layers=5), tmp_path, "safetensors", lambda form, unit: Keep())
    block = sum(4 * e.size for name, e in open_tensors(tmp_path).items() if ".3." in name)
    verify_in_slices(tmp_path, cut.tokens, room=2 * block)
    assert watched == [(0, 2), (2, 4), (4, 5)]


def test_a_slice_is_gone_before_the_next_is_read(tiny, cutter, tmp_path, monkeypatch):
    """Networks point at themselves: without a word they would stay until the collector happens by."""
    cut = cutter(
        tiny("llama", "float16", num_hidden_layers=4), tmp_path, "compressed-tensors", lambda form, unit: Int(8, 32)
    )
    alive: list[int] = []
    built: list[weakref.ref] = []

    def spied(make, folder):
        alive.append(sum(one() is not None for one in built))
        made = make(folder)
        built.extend(map(weakref.ref, (made[0] if isinstance(made, tuple) else made).modules()))
        return made

    gc.disable()
    try:
        monkeypatch.setattr(slices, "network", partial(spied, slices.network))
        monkeypatch.setattr(reading, "load", partial(spied, reading.load))
        verify_in_slices(tmp_path, cut.tokens, room=1)
    finally:
        gc.enable()
    assert len(alive) == 8 and alive[::2] == [0, 0, 0, 0]  # theirs is read where ours may still be


def test_a_fault_in_a_late_block_is_found(tiny, cutter, tmp_path):
    """The config names a form that our reader does not ask for and the runtime does."""
    cut = cutter(tiny("llama", "float16"), tmp_path, "compressed-tensors", lambda form, unit: _only_last(unit))
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"pack-quantized"', '"float-quantized"'))
    with pytest.raises(ExportError, match="cannot read the export"):
        verify_in_slices(tmp_path, cut.tokens, room=1)
    assert not list(tmp_path.glob(".slice-*"))


def _only_last(unit):
    return Int(4, 32) if unit.block == 1 and unit.kind == "linear" else Keep()


def test_blocks_that_cannot_be_renumbered_are_read_whole(tiny, cutter, tmp_path):
    source = tiny("qwen3_moe", "float16", decoder_sparse_step=2, moe_intermediate_size=32)
    cut = cutter(source, tmp_path, "compressed-tensors", cutter.rotate(Int(4, 8), Fp8()))
    found = verify_in_slices(tmp_path, cut.tokens, room=1)
    assert found["logit_error"] < 1e-5 and not found["verified_in"].endswith("in slices")


def test_config_of_a_slice(tiny, cutter, tmp_path):
    cutter(tiny("qwen3", "float16"), tmp_path, "compressed-tensors", cutter.rotate(Int(3, 32)))
    write_slice(open_checkpoint(tmp_path, quantized=True), 1, 2, tmp_path / "slice")
    config = json.loads((tmp_path / "slice/config.json").read_text())
    assert config["num_hidden_layers"] == len(config["layer_types"]) == 1
    targets = [t for g in config["quantization_config"]["config_groups"].values() for t in g["targets"]]
    assert "model.layers.0.self_attn.q_proj" in targets and not any("layers.1" in t for t in targets)
    names = open_tensors(tmp_path / "slice")
    assert {found[1] for name in names if (found := re.search(r"layers\.(\d+)\.", name))} == {"0"}


def test_packed_models_are_read_whole_by_us(tiny, cutter, tmp_path):
    cut = cutter(tiny("llama", "float16"), tmp_path, "packed", cutter.rotate(*MIX))
    found = cut.format.verify(tmp_path, None, cut.tokens)
    assert found["logit_error"] is None and "nothing compared" in found["verified_in"]
