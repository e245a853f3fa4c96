"""Llama, and Mistral, which differs only in its attention window."""

from secateur.model.families import ATTENTION, GATE_UP, MLP, QKV, Family

FAMILY = Family(types=("llama", "mistral"), groups=(QKV, GATE_UP), parts=(ATTENTION, MLP))
