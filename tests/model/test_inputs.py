"""The pass of inputs alone: what it sees is what a network multiplies, embedding and head included."""

from __future__ import annotations

import torch

from secateur.model.checkpoint import open_checkpoint
from secateur.model.inputs import forward
from secateur.model.stream import Stream


def test_every_matrix_gets_the_gram_of_its_inputs(tiny):
    llama = tiny("llama")
    stream = Stream(open_checkpoint(str(llama)), "cpu")
    tokens = torch.randint(0, 60, (5, 12), generator=torch.Generator().manual_seed(0))
    found, order = {}, []
    for units, factors in forward(stream, tokens, stream.anatomy.units):
        order += [unit.name for unit in units]
        found |= factors
    assert sorted(order) == sorted(unit.name for unit in stream.anatomy.units)
    assert set(found) == {m.key for unit in stream.anatomy.units for m in unit.matrices}

    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0].flatten(0, -2)))
    with torch.no_grad():
        network(tokens)
    for unit in stream.anatomy.units:
        for m in unit.matrices:
            one = found[m.key]
            if unit.kind == "embedding":
                counts = torch.bincount(tokens.flatten(), minlength=m.rows) + 0.5
                torch.testing.assert_close(one.g, counts / counts.sum())
                assert torch.equal(one.a, torch.eye(m.cols))
            else:
                x = seen[m.tap]
                torch.testing.assert_close(one.a, x.T @ x / len(x), rtol=1e-4, atol=1e-6)
                assert torch.equal(one.g, torch.ones(m.rows))
