"""Llama, and Mistral, which differs only in its attention window."""

from secateur.model.families import GATE_UP, QKV, Family

FAMILY = Family(types=("llama", "mistral"), groups=(QKV, GATE_UP))
