"""Gemma 2 and 3, text: Gemma with a norm before and one behind each part of a block."""

from secateur.model.families import GATE_UP, QKV, Family, Part

FAMILY = Family(
    types=("gemma2", "gemma3_text"),
    groups=(QKV, GATE_UP),
    parts=(
        Part("heads", QKV.members, "self_attn.o_proj", ("input_layernorm", "post_attention_layernorm")),
        Part("channels", GATE_UP.members, "mlp.down_proj", ("pre_feedforward_layernorm", "post_feedforward_layernorm")),
    ),
)
