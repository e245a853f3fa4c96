"""A cache of latents gives the logits of the whole text, in every family that it is said to work for."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import transformers

from secateur.model.latent import FAMILIES, KEYS, VALUES, Thin, caches, latent_cache, numbers, thin
from secateur.model.resize import Nothing
from secateur.types import ModelError


@pytest.fixture
def network(tiny):
    """`network("llama")` -> a tiny one, that forgets nothing."""

    def get(name):
        config = transformers.AutoConfig.from_pretrained(tiny(name))
        if name in ("mistral", "mixtral"):
            config.sliding_window = None
        return transformers.AutoModelForCausalLM.from_pretrained(tiny(name), dtype=torch.float32, config=config)

    return get


def thinned(network, ranks):
    """Every key and value projection of rank `ranks[0]` and `ranks[1]`, or as it is where that is 0."""
    torch.manual_seed(0)
    factors = {}
    for path, module in network.named_modules():
        name = path.rpartition(".")[2]
        if name in (KEYS, VALUES) and (rank := ranks[name == VALUES]):
            rows, cols = module.weight.shape
            factors[path] = torch.randn(rank, rows) / rank**0.5, torch.randn(rank, cols) / cols**0.5
    return thin(network.eval(), factors)


@pytest.mark.parametrize("ranks", [(5, 3), (5, 0), (0, 3)])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_text_read_in_pieces_is_the_text_at_once(network, name, ranks):
    made = thinned(network(name), ranks)
    kv = [module for path, module in made.named_modules() if path.endswith((KEYS, VALUES))]
    tokens = torch.randint(64, (2, 17))
    whole, cache = made(tokens, use_cache=False).logits, latent_cache(made)
    ends = (0, 9, 10, 11, 17)
    pieces = [made(tokens[:, a:b], past_key_values=cache).logits for a, b in pairwise(ends)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-4)
    assert numbers(cache) == sum(len(one.up) if isinstance(one, Thin) else one.out_features for one in kv)
    assert cache.get_seq_length() == 17
    cache.crop(-6)
    again = made(tokens[:, 11:], past_key_values=cache).logits
    torch.testing.assert_close(again, whole[:, 11:], rtol=1e-4, atol=1e-4)
    cache.reset()
    torch.testing.assert_close(made(tokens, past_key_values=cache).logits, whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("gone", [0, 1])
def test_a_block_without_an_attention_keeps_nothing(network, gone):
    made = thinned(network("llama"), (5, 3))
    made.model.layers[gone].self_attn = Nothing()
    tokens = torch.randint(3, 64, (2, 12))
    whole, cache = made(tokens, use_cache=False).logits, latent_cache(made)
    pieces = [made(tokens[:, a:b], past_key_values=cache).logits for a, b in pairwise((0, 7, 8, 12))]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-4)
    assert numbers(cache) == 5 + 3 and cache.get_seq_length() == 12
    cache.reorder_cache(torch.tensor([1, 0]))
    cache.crop(-5)
    again = made(tokens[[1, 0], 7:], past_key_values=cache).logits
    torch.testing.assert_close(again, whole[[1, 0], 7:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_generating_with_beams_and_prompts_of_two_lengths(network):
    made = thinned(network("llama"), (6, 4))
    tokens = torch.randint(3, 64, (2, 8))
    mask = torch.ones_like(tokens)
    tokens[1, :3], mask[1, :3] = 0, 0  # the second prompt is shorter
    how = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "num_beams": 3}
    plain = made.generate(tokens, **how)
    assert torch.equal(made.generate(tokens, past_key_values=latent_cache(made), **how), plain)


def test_which_networks_can_have_one():
    assert caches({"model_type": "llama"}) and not caches({"model_type": "gpt2"}) and not caches({})
    assert not caches({"model_type": "mistral", "sliding_window": 512})
    assert caches({"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": False})
    assert not caches({"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": True})


@torch.no_grad()
def test_a_network_without_low_ranks_is_told_what_to_do(network):
    made = network("gpt2")
    assert thin(made, {}) is made
    with pytest.raises(ModelError, match="low rank") as error:
        latent_cache(made)
    assert "--format packed" in error.value.hint
