"""Mixtral: Llama's attention, and experts that transformers 5 keeps in 3-D parameters and disks keep one by one."""

from secateur.model.families import ATTENTION, EXPERTS, QKV, Family

FAMILY = Family(types=("mixtral",), groups=(QKV,), routers=("mlp.gate",), parts=(ATTENTION, EXPERTS))
