"""Qwen2-MoE and Qwen3-MoE: some layers dense, the others with experts; Qwen2's also with one for every token."""

from secateur.model.families import ATTENTION, EXPERTS, GATE_UP, MLP, QKV, Family, Group

SHARED = Group("mlp.shared_expert.gate_up", ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"))
FAMILY = Family(
    types=("qwen2_moe", "qwen3_moe"),
    groups=(QKV, GATE_UP, SHARED),
    routers=("mlp.gate", "mlp.shared_expert_gate"),
    parts=(ATTENTION, MLP, EXPERTS),
)
