"""Qwen2 (biases on q, k and v) and Qwen3 (norms on q and k): the linear layers are Llama's."""

from secateur.model.families import GATE_UP, QKV, Family

FAMILY = Family(types=("qwen2", "qwen3"), groups=(QKV, GATE_UP))
