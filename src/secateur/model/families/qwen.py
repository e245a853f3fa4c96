"""Qwen2 (biases on q, k and v) and Qwen3 (norms on q and k): the linear layers are Llama's."""

from secateur.model.families import ATTENTION, GATE_UP, MLP, QKV, Family

FAMILY = Family(types=("qwen2", "qwen3"), groups=(QKV, GATE_UP), parts=(ATTENTION, MLP))
