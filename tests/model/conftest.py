"""Tiny random models of every family, saved by transformers itself."""

from __future__ import annotations

import pytest
import torch
import transformers as t

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = SMALL | {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
GEMMA = SMALL | {"head_dim": 8}

CONFIGS = {
    "llama": lambda: t.LlamaConfig(**SMALL),
    "llama-tied": lambda: t.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "mistral": lambda: t.MistralConfig(**SMALL, sliding_window=8),
    "qwen2": lambda: t.Qwen2Config(**SMALL),
    "qwen3": lambda: t.Qwen3Config(**SMALL, head_dim=8),
    "gemma": lambda: t.GemmaConfig(**GEMMA),
    "gemma2": lambda: t.Gemma2Config(**GEMMA, query_pre_attn_scalar=8),
    "gemma3": lambda: t.Gemma3TextConfig(**GEMMA, query_pre_attn_scalar=8),
    "phi3": lambda: t.Phi3Config(**SMALL),
    "opt": lambda: t.OPTConfig(**(SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32})),
    "opt-projected": lambda: t.OPTConfig(**(SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 16})),
    "gpt2": lambda: t.GPT2Config(
        vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    ),
    "gpt_neox": lambda: t.GPTNeoXConfig(**SMALL),
    "mixtral": lambda: t.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": lambda: t.Qwen2MoeConfig(
        **MOE, num_experts=4, shared_expert_intermediate_size=40, mlp_only_layers=[0]
    ),
    "qwen3_moe": lambda: t.Qwen3MoeConfig(**MOE, num_experts=12, head_dim=8),
    # no table of ours: the generic path
    "olmo2": lambda: t.Olmo2Config(**SMALL),
    "gpt_oss": lambda: t.GptOssConfig(**SMALL, head_dim=8, num_local_experts=4, num_experts_per_tok=2),
    "bloom": lambda: t.BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4),
}


def make(name: str, folder, **kwargs):
    """Save a tiny random model of a family; every parameter is moved off its initial zeros and ones."""
    torch.manual_seed(sum(map(ord, name)))
    network = t.AutoModelForCausalLM.from_config(CONFIGS[name]())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.save_pretrained(folder, **kwargs)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """`tiny("llama")` -> the folder of a tiny Llama."""
    made = {}

    def get(name: str, **kwargs):
        key = (name, *sorted(kwargs.items()))
        if key not in made:
            made[key] = make(name, tmp_path_factory.mktemp("tiny") / name, **kwargs)
        return made[key]

    return get


@pytest.fixture(params=list(CONFIGS))
def any_family(request, tiny):
    return tiny(request.param)
