"""llm-compressor: rtn-w4g128 | gptq-w4g128 | gptq-w3g128 | gptq-w2g64a ...

`wB` is the width in bits, `gN` the group size, a final "a" means asymmetric. The head stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import linears
from runner import main
from torch import Tensor


def recipe(method: str) -> list[Any]:
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    found = re.fullmatch(r"(rtn|gptq)-w(\d)g(\d+)(a?)", method)
    if not found:
        raise SystemExit(f"unknown method {method}\nhint: write it like gptq-w3g128 or rtn-w2g64a")
    weights = {"num_bits": int(found[2]), "type": "int", "symmetric": not found[4]}
    weights |= {"strategy": "group", "group_size": int(found[3])}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    kind = {"rtn": QuantizationModifier, "gptq": GPTQModifier}[found[1]]
    return [kind(config_groups=groups, ignore=["lm_head"])]


def cut(method: str, model: Any, tokenizer: Any, calib: Tensor) -> tuple[dict[str, Tensor], Callable[[Path], None]]:
    from llmcompressor import oneshot
    from torch.utils.data import DataLoader

    rows: Any = [{"input_ids": row, "attention_mask": row.new_ones(row.shape)} for row in calib]
    data = {"dataset": DataLoader(rows, batch_size=8)}
    data |= {"num_calibration_samples": len(calib), "max_seq_length": calib.shape[1]}
    oneshot(model=model, recipe=recipe(method), tokenizer=tokenizer, **({} if method.startswith("rtn") else data))

    def write(folder: Path) -> None:
        model.save_pretrained(folder, save_compressed=True)
        tokenizer.save_pretrained(folder)

    return {f"{name}.weight": _seen(layer) for name, layer in linears(model)}, write


def _seen(layer: Any) -> Tensor:
    """What the layer multiplies with: round to nearest happens only in its forward pass, GPTQ's has happened."""
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    zero = getattr(layer, "weight_zero_point", None)
    args = layer.quantization_scheme.weights
    return fake_quantize(layer.weight.data, layer.weight_scale.data, zero.data if zero is not None else None, args)


if __name__ == "__main__":
    main("llm-compressor", version("llmcompressor"), cut, __doc__ or "")
