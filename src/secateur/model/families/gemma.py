"""Gemma: Llama's linear layers, a scaled embedding that is tied to the head."""

from secateur.model.families import ATTENTION, GATE_UP, MLP, QKV, Family

FAMILY = Family(types=("gemma",), groups=(QKV, GATE_UP), parts=(ATTENTION, MLP))
