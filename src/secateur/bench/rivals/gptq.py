"""GPTQ of llm-compressor: error feedback column by column, one width for all layers (arXiv 2210.17323)."""

from __future__ import annotations

import re
from typing import Any

NAME = "gptq"
DISTRIBUTION = "llmcompressor"
FORMAT = "compressed-tensors"
#: `wB` is the width in bits, `gN` the group size, a final "a" means asymmetric, `rtn-` round to nearest instead
SETTINGS = ("w8g128", "w4g32", "w4g64", "w4g128", "w3g32", "w3g64", "w3g128", "w2g32", "w2g64", "w2g128")
SHAPE = r"(rtn-)?w([2348])g(\d+)(a?)"


def bits(setting: str, rows: int, cols: int) -> float:
    """Codes of so many bits in words of 32, a scale of 16 bits a group, and a zero point where asked for."""
    found = re.fullmatch(SHAPE, setting)
    assert found is not None
    width, group = int(found[2]), int(found[3])
    words = -(-cols // (32 // width)) * 32 / cols  # codes do not cross words
    return words + (16 + (width if found[4] else 0)) / group


def cut(job: Any) -> str:
    """The head and what lies outside the blocks stay as they are, as in its examples."""
    from importlib.metadata import version

    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from torch.utils.data import DataLoader

    found = re.fullmatch(SHAPE, job.setting)
    assert found is not None
    weights = {"num_bits": int(found[2]), "type": "int", "symmetric": not found[4]}
    weights |= {"strategy": "group", "group_size": int(found[3])}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    recipe = (QuantizationModifier if found[1] else GPTQModifier)(config_groups=groups, ignore=["lm_head"])
    windows, model, tokenizer = job.windows(), job.load(), job.tokenizer()
    rows: Any = [{"input_ids": row, "attention_mask": row.new_ones(row.shape)} for row in windows]
    data = {"dataset": DataLoader(rows, batch_size=8)}
    data |= {"num_calibration_samples": len(windows), "max_seq_length": windows.shape[1]}
    oneshot(model=model, recipe=[recipe], tokenizer=tokenizer, **({} if found[1] else data))
    model.save_pretrained(job.packed, save_compressed=True)
    tokenizer.save_pretrained(job.packed)
    return version(DISTRIBUTION)
