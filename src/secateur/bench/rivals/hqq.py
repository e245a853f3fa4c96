"""HQQ: half-quadratic quantization, which looks at the weights alone and needs no text (Badri and Shaji, 2023)."""

from __future__ import annotations

import re
from typing import Any

NAME = "hqq"
DISTRIBUTION = "hqq"
MORE = ("transformers",)
FORMAT = "compressed-tensors"
#: `wB` is the width in bits, `gN` the group size
SETTINGS = ("w8g128", "w4g32", "w4g64", "w4g128", "w3g32", "w3g64", "w3g128", "w2g32", "w2g64", "w2g128")
SHAPE = r"w([2348])g(\d+)"


def bits(setting: str, rows: int, cols: int) -> float:
    """Codes (ten of 3 bits in a word of 32), and for every group a scale and a zero point of 16 bits."""
    found = re.fullmatch(SHAPE, setting)
    assert found is not None
    return {3: 3.2}.get(int(found[1]), int(found[1])) + 32 / int(found[2])


def cut(job: Any) -> str:
    """Its users keep scales and zero points in 16 bits, and so are they here."""
    from importlib.metadata import version

    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from safetensors.torch import save_file

    found = re.fullmatch(SHAPE, job.setting)
    assert found is not None
    config = BaseQuantizeConfig(nbits=int(found[1]), group_size=int(found[2]), axis=1)
    model = job.load()
    held = {name: t.data for name, t in model.state_dict().items()}
    if getattr(model.config, "tie_word_embeddings", False):
        held.pop("lm_head.weight", None)
    dense = {}
    for name, layer in list(job.linears(model)):
        coded = HQQLinear(layer, config, compute_dtype=torch.float32, device=job.device, del_orig=False)
        dense[f"{name}.weight"] = coded.dequantize()
        del held[f"{name}.weight"]
        held[f"{name}.codes"] = coded.W_q.data
        held[f"{name}.scale"], held[f"{name}.zero"] = coded.meta["scale"], coded.meta["zero"]
    save_file({name: t.contiguous().cpu() for name, t in held.items()}, job.packed / "model.safetensors")
    job.dense(dense)
    return version(DISTRIBUTION)
