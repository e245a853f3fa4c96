"""Gemma 1 to 3, text: Llama's linear layers, more norms, a scaled embedding that is tied to the head."""

from secateur.model.families import GATE_UP, QKV, Family

FAMILY = Family(types=("gemma", "gemma2", "gemma3_text"), groups=(QKV, GATE_UP))
