"""A model's settings as GGUF metadata, and back: lengths, heads, norms, rotation, attention windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.parts.gguf.names import ARCHS, Arch
from secateur.types import ModelError

#: transformers' name of a whole number or a float -> the file's, behind the architecture
_PLAIN = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "vocab_size": "vocab_size",
}
_WIDTHS = {
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}
_GEMMA3_PATTERN = 6  # every sixth block sees everything; llama.cpp knows no other rhythm


def metadata(arch: Arch, config: Any, widths: Mapping[str, list[int]] | None = None) -> dict[str, Any]:
    """Everything but the tokenizer, key -> value. `config` is transformers'; `widths` are per-block arrays instead.

    ModelError where llama.cpp would compute something else than this configuration says.
    """
    _check(arch, config)
    out: dict[str, Any] = {"general.architecture": arch.name, "general.quantization_version": 2}
    for ours, theirs in _PLAIN.items():
        value = getattr(config, ours, None)
        if value is not None:
            out[f"{arch.name}.{theirs}"] = value
    out[f"{arch.name}.context_length"] = context_length(arch, config)
    if arch.name == "gpt2":
        out["gpt2.feed_forward_length"] = config.n_inner or 4 * config.n_embd
        return out
    head = head_size(config)
    turns = int(head * _rope(config).get("partial_rotary_factor", 1.0))
    more = {"attention.key_length": head, "attention.value_length": head, "rope.dimension_count": turns}
    more |= _rotation(config)
    if arch.renormed is not None:
        more |= _experts(config)
    if arch.sliding:
        more["attention.sliding_window"] = config.sliding_window
    if arch.name == "gemma3":
        more["attention.sliding_window_pattern"] = _GEMMA3_PATTERN
    return out | {f"{arch.name}.{key}": value for key, value in {**more, **(widths or {})}.items()}


def _experts(config: Any) -> dict[str, int]:
    """How many experts there are, how many a token is sent to, and how wide they are where no other setting says so."""
    out = {"expert_count": config.num_local_experts if config.model_type == "mixtral" else config.num_experts}
    out["expert_used_count"] = config.num_experts_per_tok
    for ours, theirs in _WIDTHS.items():
        if getattr(config, ours, None):
            out[theirs] = getattr(config, ours)
    return out


def head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def context_length(arch: Arch, config: Any) -> int:
    """Tokens that the file can take: where llama.cpp knows no window of attention, no more than the window."""
    longest = config.max_position_embeddings
    kinds = getattr(config, "layer_types", None)
    slides = "sliding_attention" in kinds if kinds else True
    window = getattr(config, "sliding_window", None)
    return min(longest, window) if window and slides and not arch.sliding else longest


def extra_tensors(config: Any) -> dict[str, Tensor]:
    """Tensors that only the file has: by how much each frequency of the rotation is slowed down."""
    rope = _rope(config)
    if rope.get("rope_type") == "llama3":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        steps = torch.arange(0, head_size(config), 2, dtype=torch.float64) / head_size(config)
        return {"rope_freqs.weight": (rope["rope_theta"] ** -steps / slowed.double()).float()}
    if rope.get("rope_type") == "longrope":
        return {f"rope_factors_{kind}.weight": torch.tensor(rope[f"{kind}_factor"]) for kind in ("long", "short")}
    return {}


def _rope(config: Any) -> dict[str, Any]:
    rope = dict(getattr(config, "rope_parameters", None) or {})
    return dict(rope.get("full_attention") or rope)


def _rotation(config: Any) -> dict[str, Any]:
    rope = _rope(config)
    out: dict[str, Any] = {"rope.freq_base": float(rope["rope_theta"])}
    local = (config.rope_parameters or {}).get("sliding_attention")
    if local:
        out["rope.freq_base_swa"] = float(local["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        out |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind in ("yarn", "longrope"):
        first = rope.get("original_max_position_embeddings") or config.original_max_position_embeddings
        out["rope.scaling.original_context_length"] = first
    if kind == "longrope":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        _, attention = ROPE_INIT_FUNCTIONS["longrope"](config, torch.device("cpu"))
        out |= {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": float(attention)}
    return out


def _check(arch: Arch, config: Any) -> None:
    names = ("hidden_activation", "hidden_act", "activation_function")
    act = next((getattr(config, name) for name in names if getattr(config, name, None)), "")
    if act not in arch.acts:
        raise ModelError(f"llama.cpp runs `{arch.name}` with {arch.acts[0]}, and this model has {act}", _OTHER)
    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    strange = kind not in ("default", "linear", "yarn", "llama3", "longrope")
    strange |= kind == "yarn" and any(rope.get(key) for key in ("mscale", "mscale_all_dim", "attention_factor"))
    if strange:
        raise ModelError(f"llama.cpp has no rotation like this model's ({kind})", _OTHER)
    if arch.name in ("gemma2", "gemma3"):
        large = config.num_hidden_layers == {"gemma2": 46, "gemma3": 62}[arch.name]
        expected = config.hidden_size // config.num_attention_heads if large else config.head_dim
        if config.query_pre_attn_scalar != expected:
            said = f"scales attention by {expected} and this model by {config.query_pre_attn_scalar}"
            raise ModelError(f"llama.cpp's `{arch.name}` {said}", _OTHER)
        every = {"gemma2": 2, "gemma3": _GEMMA3_PATTERN}[arch.name]
        usual = [
            "full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(len(config.layer_types))
        ]
        if list(config.layer_types) != usual:
            raise ModelError(
                f"llama.cpp's `{arch.name}` sees everything in one of {every} blocks, this model not", _OTHER
            )
    if arch.renormed is not None:
        if getattr(config, "mlp_only_layers", None) or getattr(config, "decoder_sparse_step", 1) != 1:
            raise ModelError(f"llama.cpp's `{arch.name}` has experts in every block, this model not", _OTHER)
        if getattr(config, "norm_topk_prob", True) != arch.renormed:
            does, has = ("makes", "leaves") if arch.renormed else ("leaves", "makes")
            how = {"makes": "make the weights of chosen experts add up to one", "leaves": "leave them as they are"}
            raise ModelError(f"llama.cpp's `{arch.name}` would {how[does]}, and this model would {how[has]}", _OTHER)
    if arch.name == "gpt2" and (config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights):
        raise ModelError("llama.cpp's `gpt2` scales attention alike in every block, this model not", _OTHER)


_OTHER = "write another format, --format packed for example"


# and back

#: the architecture -> transformers' model_type and class
_TYPES = {arch.name: kind for kind, arch in reversed(ARCHS.items())}
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
_GPT2 = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
    "feed_forward_length": "n_inner",
    "vocab_size": "vocab_size",
}


def config_of(
    told: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], slowed: Sequence[float] = ()
) -> dict[str, Any]:
    """config.json for a file's metadata and its tensors (name -> shape): what transformers builds the network from.

    `slowed` are the file's factors of the rotation's frequencies, where it has some (Llama 3.1): what they were made of
    is not in the file, so they come back one by one, as transformers has them for LongRoPE.
    """
    name = str(told.get("general.architecture"))
    if name not in _TYPES:
        raise ModelError(
            f"this GGUF file is of the architecture `{name}`, which Secateur does not read",
            f"it reads {', '.join(_TYPES)}",
        )
    own = {key.removeprefix(f"{name}."): value for key, value in told.items() if key.startswith(f"{name}.")}
    kind = "mixtral" if name == "llama" and own.get("expert_count") else _TYPES[name]
    out: dict[str, Any] = {"model_type": kind, "architectures": [_CLASSES[kind]], "dtype": "float16"}
    back = _GPT2 if kind == "gpt2" else {theirs: ours for ours, theirs in _PLAIN.items()}
    out |= {ours: own[theirs] for theirs, ours in back.items() if theirs in own}
    if uneven := [key for key, value in out.items() if isinstance(value, list) and key != "architectures"]:
        raise ModelError(f"the blocks of this GGUF file differ in {uneven[0]}, which transformers cannot build", _OTHER)
    out["vocab_size"] = shapes["token_embd.weight"][0]
    out["tie_word_embeddings"] = "output.weight" not in shapes
    for ours, theirs in (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")):
        out[ours] = told.get(f"tokenizer.ggml.{theirs}_token_id")  # None where none is, whatever the usual one
    if kind == "gpt2":
        return out
    out["head_dim"] = own.get("attention.key_length", out["hidden_size"] // out["num_attention_heads"])
    out.setdefault("num_key_value_heads", out["num_attention_heads"])
    if kind == "llama":
        out |= {"attention_bias": "blk.0.attn_q.bias" in shapes, "mlp_bias": "blk.0.ffn_up.bias" in shapes}
    if ARCHS[kind].renormed is not None:
        count = "num_local_experts" if kind == "mixtral" else "num_experts"
        out |= {count: own["expert_count"], "num_experts_per_tok": own["expert_used_count"]}
        out |= {ours: own[theirs] for ours, theirs in _WIDTHS.items() if theirs in own}
        if kind != "mixtral":
            out |= {"norm_topk_prob": ARCHS[kind].renormed, "decoder_sparse_step": 1, "mlp_only_layers": []}
            out["qkv_bias" if kind == "qwen2_moe" else "attention_bias"] = "blk.0.attn_q.bias" in shapes
    if kind.startswith("gemma") and kind != "gemma":
        out |= {"query_pre_attn_scalar": out["head_dim"], "sliding_window": own["attention.sliding_window"]}
        out.setdefault("attn_logit_softcapping", None)
        out.setdefault("final_logit_softcapping", None)
    rope = _rope_back(kind, own, out)
    if len(slowed):
        each = {"long_factor": list(slowed), "short_factor": list(slowed), "attention_factor": 1.0, "factor": 1.0}
        length = out.get("max_position_embeddings", 2048)
        rope |= {"rope_type": "longrope", "original_max_position_embeddings": length, **each}
    return out | {"rope_parameters": rope}


def _rope_back(kind: str, own: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_theta": float(own.get("rope.freq_base", 10000.0)), "rope_type": "default"}
    scaling = own.get("rope.scaling.type", "none")
    if scaling not in ("none", "linear", "yarn"):
        raise ModelError(f"the rotation of this GGUF file is scaled by {scaling}, which Secateur does not read", _OTHER)
    if scaling != "none":
        rope |= {"rope_type": scaling, "factor": float(own["rope.scaling.factor"])}
    if scaling == "yarn":
        rope["original_max_position_embeddings"] = own["rope.scaling.original_context_length"]
    share = own.get("rope.dimension_count", config["head_dim"]) / config["head_dim"]
    if kind == "phi3":
        rope["partial_rotary_factor"] = share
    elif share != 1:
        raise ModelError("this GGUF file rotates a part of each head, which its architecture does not", _OTHER)
    if kind == "gemma3_text":
        local = {"rope_theta": float(own.get("rope.freq_base_swa", 10000.0)), "rope_type": "default"}
        return {"full_attention": rope, "sliding_attention": local}
    return rope
