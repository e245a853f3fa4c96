"""Importance matrices: written in both forms, read back, gathered as the network computes, and taken by llama.cpp."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from secateur.model.checkpoint import open_checkpoint
from secateur.model.stream import Stream
from secateur.parts.gguf import imatrix
from secateur.types import DataError

pytest.importorskip("gguf")
HELD = {"blk.0.attn_q.weight": np.array([1.0, 0.5], np.float32), "output.weight": np.array([0.0, 2.0, 3.0], np.float32)}


@pytest.mark.parametrize("name", ["held.dat", "held.gguf"])
def test_written_and_read(name, tmp_path):
    imatrix.save(HELD, tmp_path / name, tokens=4096, data="text.txt")
    found = imatrix.load(tmp_path / name)
    assert set(found) == set(HELD)
    for key in HELD:
        np.testing.assert_allclose(found[key], HELD[key], rtol=1e-6)


def test_the_old_form_by_hand(tmp_path):
    name = b"output.weight"
    raw = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 2, 2) + struct.pack("<ff", 4.0, 6.0)
    (tmp_path / "a.dat").write_bytes(raw)
    assert imatrix.load(tmp_path / "a.dat")["output.weight"].tolist() == [2.0, 3.0]
    (tmp_path / "b.dat").write_bytes(raw[:-5])
    with pytest.raises(DataError, match=r"b.dat is not an importance matrix"):
        imatrix.load(tmp_path / "b.dat")


def test_gathered_block_by_block(tmp_path):
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **sizes)).eval()
    network.save_pretrained(tmp_path)
    stream = Stream(open_checkpoint(tmp_path))
    names = {matrix.tensor: matrix.tensor for unit in stream.anatomy.units for matrix in unit.matrices}
    tokens = torch.arange(60).reshape(5, 12)
    found = imatrix.gather(stream, tokens, names)
    seen = {}
    watched = {"model.layers.1.mlp.down_proj": None, "model.layers.0.self_attn.k_proj": None, "lm_head": None}
    for name in watched:
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0].square().mean((0, 1))})
        )
    with torch.no_grad():
        network(tokens)
    assert len(found) == 15  # seven matrices a block, and the head
    for name, mean in seen.items():
        np.testing.assert_allclose(found[f"{name}.weight"], mean.numpy(), rtol=1e-4)
