"""Fewer blocks: names, settings, and the bytes that were quoted for longer names."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from secateur.export._renumber import block_of, config_of_blocks, renumbered
from secateur.export._write import Parts, file_bytes


def test_the_first_number_of_a_name_is_the_blocks():
    kept = [0, 2, 11]
    assert renumbered("model.layers.11.mlp.experts.3.w1.weight", kept) == "model.layers.2.mlp.experts.3.w1.weight"
    assert renumbered("model.layers.2.mlp.experts.gate_up_proj#3[0:64]", kept).startswith("model.layers.1.mlp")
    assert renumbered("h.1.attn.weight", kept) == "" and renumbered("lm_head.weight", kept) == "lm_head.weight"
    assert block_of("model.embed_tokens.weight") is None and block_of("transformer.h.7") == 7


def test_settings_of_one_entry_a_block_are_shortened():
    config = {
        "num_hidden_layers": 4,
        "layer_types": list("abcd"),
        "architectures": ["One"] * 4,
        "mlp_only_layers": [0, 3],
    }
    found = config_of_blocks(config, [0, 2, 3])
    assert found["num_hidden_layers"] == 3 and found["layer_types"] == ["a", "c", "d"]
    assert found["mlp_only_layers"] == [0, 2] and found["architectures"] == ["One"] * 4


def test_a_rule_by_number_is_spelled_out():
    from transformers import Gemma3TextConfig, Qwen3MoeConfig

    config = {"num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [1]}
    found = config_of_blocks(config, [0, 1, 3, 5], Qwen3MoeConfig(**config))  # experts were in 3 and 5
    assert found["decoder_sparse_step"] == 1 and found["mlp_only_layers"] == [0, 1]
    config = {"num_hidden_layers": 6, "sliding_window_pattern": 3}
    found = config_of_blocks(config, [0, 2, 3], Gemma3TextConfig(**config))
    assert found["layer_types"] == ["sliding_attention", "full_attention", "sliding_attention"]
    assert Gemma3TextConfig(**found).layer_types == found["layer_types"] and found["num_hidden_layers"] == 3


def test_a_shorter_name_takes_the_bytes_of_the_longer(tmp_path):
    tensors = {f"layers.{at}.w": torch.full((3,), float(at)) for at in (0, 9, 100)}
    parts = Parts(tmp_path / "parts")
    parts.save("all", tensors)
    called = {name: renumbered(name, [0, 9, 100]) for name in tensors}
    (file,) = parts.stitch(["all"], tmp_path / "out", called=called)
    assert file.stat().st_size == file_bytes(parts.layouts(["all"]))
    assert {name: int(x[0]) for name, x in load_file(file).items()} == {
        "layers.0.w": 0,
        "layers.1.w": 9,
        "layers.2.w": 100,
    }
