"""What a token costs a language model: operations of its matrices as PyTorch counts them, and bytes of its cache."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from secateur.model.checkpoint import open_checkpoint
from secateur.model.matrix import place
from secateur.model.stream import Stream
from secateur.parts.reading import network

NAMES = ["llama", "llama-tied", "gpt2", "opt", "qwen2", "gemma", "mixtral", "qwen3_moe", "gpt_neox"]
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm}


def counted(folder, tokens) -> int:
    """Operations of all matrix products but those of queries, keys and values among themselves."""
    model = network(folder)
    model.config._experts_implementation = "eager"  # one by one, so that they are counted
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens)
    return sum(n for op, n in counter.get_flop_counts()["Global"].items() if op in PRODUCTS)


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_those_that_run(tiny, name):
    stream = Stream(open_checkpoint(str(tiny(name))))
    units = stream.anatomy.units
    cut = sum(stream.per_weight(unit, m) * m.size for unit in units for m in unit.matrices)
    rest = stream.elsewhere({place(m).module for unit in units for m in unit.matrices})
    tokens = torch.arange(16)[None] % 90 + 3
    assert counted(tiny(name), tokens) == pytest.approx(16 * (cut + rest))


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma"])
def test_bytes_of_the_cache(tiny, name):
    folder = tiny(name)
    with torch.no_grad():
        cache = network(folder)(torch.arange(8)[None] % 90, use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert Stream(open_checkpoint(str(folder))).kv == 2 * held / 8
