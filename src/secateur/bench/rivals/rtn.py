"""rtn: round to nearest by the compressed-tensors library itself, one width for all layers."""

from __future__ import annotations

import re
from typing import Any

NAME = "rtn"
DISTRIBUTION = "compressed-tensors"
MORE = ("transformers",)
FORMAT = "compressed-tensors"
#: `wB` is the width in bits, `gN` the group size, a final "a" means asymmetric
SETTINGS = ("w8g32", "w8g128", "w4g32", "w4g64", "w4g128")
SHAPE = r"w([48])g(\d+)(a?)"


def bits(setting: str, rows: int, cols: int) -> float:
    """Codes, a scale of 16 bits a group, and a zero point as wide as a code where asked for."""
    found = re.fullmatch(SHAPE, setting)
    assert found is not None
    return int(found[1]) + (16 + (int(found[1]) if found[3] else 0)) / int(found[2])


def cut(job: Any) -> str:
    """Scales from the least and the largest weight of each group, as its own observers take them; no text is needed."""
    from importlib.metadata import version

    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams

    found = re.fullmatch(SHAPE, job.setting)
    assert found is not None
    width, group = int(found[1]), int(found[2])
    weights = QuantizationArgs(num_bits=width, symmetric=not found[3], group_size=group)  # which means strategy "group"
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    model = job.load()
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
    for _, layer in job.linears(model):
        grouped = layer.weight.data.unflatten(1, (-1, group))
        scale, zero = calculate_qparams(grouped.amin(-1), grouped.amax(-1), weights)
        layer.weight_scale.data.copy_(scale)
        layer.weight_zero_point.data.copy_(zero)
        layer.quantization_status = QuantizationStatus.FROZEN
    writer = ModelCompressor.from_pretrained_model(model)
    writer.compress_model(model)
    model.save_pretrained(job.packed)
    writer.update_config(str(job.packed))
    return version(DISTRIBUTION)
