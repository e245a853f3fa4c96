"""HQQ: w4g64 | w3g64 | w2g64 | w2g16 ... (uses no calibration text)

`wB` is the width in bits, `gN` the group size. Scales and zero points are counted at 16 bits, as its users store them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from common import linears
from runner import main
from torch import Tensor


def cut(method: str, model: Any, tokenizer: Any, calib: Tensor) -> tuple[dict[str, Tensor], Callable[[Path], None]]:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    found = re.fullmatch(r"w(\d)g(\d+)", method)
    if not found:
        raise SystemExit(f"unknown method {method}\nhint: write it like w3g64")
    config = BaseQuantizeConfig(nbits=int(found[1]), group_size=int(found[2]), axis=1)
    dense: dict[str, Tensor] = {}
    held = {name: t.data for name, t in model.state_dict().items()}
    for name, layer in list(linears(model)):
        coded = HQQLinear(layer, config, compute_dtype=torch.float32, device="cpu", del_orig=False)
        dense[f"{name}.weight"] = coded.dequantize()
        del held[f"{name}.weight"]
        held[f"{name}.codes"] = coded.W_q.data
        held[f"{name}.scale"], held[f"{name}.zero"] = coded.meta["scale"], coded.meta["zero"]

    def write(folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({name: t.contiguous() for name, t in held.items()}, folder / "model.safetensors")

    return dense, write


if __name__ == "__main__":
    main("hqq", version("hqq"), cut, __doc__ or "")
