"""GPTQModel: GPTQ as its maintained library does it, with its own file (arXiv 2210.17323)."""

from __future__ import annotations

import os
import re
from typing import Any

NAME = "gptqmodel"
DISTRIBUTION = "gptqmodel"
FORMAT = "compressed-tensors"
#: `wB` is the width in bits, `gN` the group size, a final "a" means asymmetric
SETTINGS = ("w8g128", "w4g32", "w4g64", "w4g128", "w3g32", "w3g64", "w3g128", "w2g32", "w2g64", "w2g128")
SHAPE = r"w([2348])g(\d+)(a?)"


def bits(setting: str, rows: int, cols: int) -> float:
    """Codes, for every group a scale of 16 bits and a zero point as wide as a code, symmetric or not, and for every
    column the number of its group, 32 bits."""
    found = re.fullmatch(SHAPE, setting)
    assert found is not None
    return int(found[1]) + (16 + int(found[1])) / int(found[2]) + 32 / rows


def cut(job: Any) -> str:
    """With its own defaults. Its own reader reads its file: the values go beside it."""
    # it asks for (cores + 1) // 2 workers, one on a machine of two cores, and refuses its own pool of two
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    from importlib.metadata import version

    import torch
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.quantization.config import GPTQConfig

    found = re.fullmatch(SHAPE, job.setting)
    assert found is not None
    torch.manual_seed(job.seed)
    config = GPTQConfig(bits=int(found[1]), group_size=int(found[2]), sym=not found[3])
    model = GPTQModel.load(str(job.model), config, device=job.device, dtype=torch.float32)
    rows = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in job.windows()]
    model.quantize(rows, batch_size=8)
    model.save(str(job.packed))
    read = GPTQModel.load(str(job.packed), device=job.device, backend=BACKEND.GPTQ_TORCH)
    layers = {name: layer for name, layer in read.model.named_modules() if hasattr(layer, "dequantize_weight")}
    job.dense({f"{name}.weight": layer.dequantize_weight().T.float().contiguous() for name, layer in layers.items()})
    return version(DISTRIBUTION)
