"""AutoRound: w4g128 | w3g128 | w2g64 | w2g64a ... (200 tuning steps, its default) | rtn-w4g128 (its round to nearest)

`wB` is the width in bits, `gN` the group size, a final "a" means asymmetric. Its file stores zero points either way.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import linears
from runner import main
from torch import Tensor


def cut(method: str, model: Any, tokenizer: Any, calib: Tensor) -> tuple[dict[str, Tensor], Callable[[Path], None]]:
    from auto_round import AutoRound

    found = re.fullmatch(r"(rtn-)?w(\d)g(\d+)(a?)", method)
    if not found:
        raise SystemExit(f"unknown method {method}\nhint: write it like w3g128 or w2g64a")
    scheme = {"bits": int(found[2]), "group_size": int(found[3]), "sym": not found[4], "data_type": "int"}
    rows = [{"input_ids": row[None], "attention_mask": row.new_ones(1, len(row))} for row in calib]
    how: dict[str, Any] = {"iters": 0 if found[1] else 200, "nsamples": len(calib), "seqlen": calib.shape[1]}
    how |= {"batch_size": 8, "device_map": "cpu", "enable_torch_compile": False, "amp": False}
    tuner = AutoRound(model, tokenizer, scheme=scheme, dataset=rows, **how)
    tuned, _ = tuner.quantize()  # leaves the rounded values in the model

    def write(folder: Path) -> None:
        tuner.save_quantized(str(folder), format="auto_round", inplace=True)
        for file in [f for f in folder.rglob("*") if f.is_file() and f.parent != folder]:
            shutil.move(file, folder / file.name)  # some versions add a folder of their own

    return {f"{name}.weight": layer.weight.data.float().clone() for name, layer in linears(tuned)}, write


if __name__ == "__main__":
    main("auto-round", version("auto-round"), cut, __doc__ or "")
