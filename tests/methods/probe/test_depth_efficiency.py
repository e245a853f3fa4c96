"""What layers add and what their absence does: by hand on a network of sums, and the paper's defining properties."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from secateur.methods.probe.depth_efficiency import _measured, effects, skipped, trace


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for matrix in (made.model.layers[2].self_attn.o_proj, made.model.layers[2].mlp.down_proj):
            matrix.weight.zero_()
    return made


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))


def parts(model):
    return [("self_attn", "mlp")] * len(model.model.layers)


def test_by_hand():
    h, a, m = (torch.tensor([[x]]) for x in ([3.0, 4.0], [0.0, -4.0], [3.0, 0.0]))
    attention, mlp, block, cos_a, cos_m = (float(x) for x in _measured(h, a, m))
    assert (attention, mlp, block) == pytest.approx((4 / 5, 3 / 3, 5 / 5))
    assert (cos_a, cos_m) == pytest.approx((-4 / 5, 1.0))


def test_contributions_are_those_of_the_stream(model, tokens):
    found = trace(model, model.model.layers, parts(model), tokens)
    with torch.no_grad():
        states = model(tokens, output_hidden_states=True).hidden_states
    for k in range(3):  # behind the last block the states are normalised
        added = states[k + 1] - states[k]
        expected = (added.norm(dim=-1) / states[k].norm(dim=-1)).mean()
        assert float(found.block[k]) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)
    # a block of zero weights contributes nothing
    assert float(found.attention[2]) == float(found.mlp[2]) == float(found.block[2]) == 0.0


def test_scaling_the_stream_and_what_is_added_changes_nothing():
    draw = torch.Generator().manual_seed(2)
    h, a, m = (torch.randn(2, 5, 8, generator=draw) for _ in range(3))
    assert torch.allclose(torch.stack(_measured(h, a, m)), torch.stack(_measured(7 * h, 7 * a, 7 * m)))


def test_what_lies_before_never_changes_and_zero_blocks_have_no_effect(model, tokens):
    found = effects(model, model.model.layers, tokens)
    assert (found.later.tril() == 0).all() and (found.later[0, 1:2] > 0).all()
    assert float(found.output[2]) == 0.0 and (found.later[2] == 0).all()
    assert (found.output[[0, 1, 3]] > 0).all() and (found.output <= 2**0.5).all()
    mean = effects(model, model.model.layers, tokens, over="mean")
    assert (mean.output <= found.output).all()


def test_the_first_position_is_never_skipped(model, tokens):
    block = model.model.layers[1]
    hooks = len(block._forward_hooks)
    with torch.no_grad():
        plain = model.model(tokens[:, :1]).last_hidden_state
        with skipped(block):
            without = model.model(tokens[:, :1]).last_hidden_state
            more = model(tokens).logits
    assert torch.equal(plain, without)
    assert torch.equal(more[:, 0], model(tokens).logits[:, 0]) and not torch.equal(more, model(tokens).logits)
    assert len(block._forward_hooks) == hooks  # no trace is left
