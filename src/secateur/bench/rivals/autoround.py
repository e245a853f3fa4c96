"""AutoRound: tunes the rounding of every weight by signed gradient steps (arXiv 2309.05516)."""

from __future__ import annotations

import re
import shutil
from typing import Any

NAME = "autoround"
DISTRIBUTION = "auto-round"
FORMAT = "compressed-tensors"
#: `wB` is the width in bits, `gN` the group size, a final "a" means asymmetric, `rtn-` its round to nearest
SETTINGS = ("w8g128", "w4g32", "w4g64", "w4g128", "w3g32", "w3g64", "w3g128", "w2g32", "w2g64", "w2g128")
SHAPE = r"(rtn-)?w([2348])g(\d+)(a?)"


def bits(setting: str, rows: int, cols: int) -> float:
    """Codes, and for every group a scale of 16 bits and a zero point as wide as a code, symmetric or not."""
    found = re.fullmatch(SHAPE, setting)
    assert found is not None
    return int(found[2]) + (16 + int(found[2])) / int(found[3])


def cut(job: Any) -> str:
    """With its own defaults: 200 steps, batches of 8. Only its own reader reads its file: the values go beside it."""
    from importlib.metadata import version

    from auto_round import AutoRound

    found = re.fullmatch(SHAPE, job.setting)
    assert found is not None
    scheme = {"bits": int(found[2]), "group_size": int(found[3]), "sym": not found[4], "data_type": "int"}
    windows = job.windows()
    rows = [{"input_ids": row[None], "attention_mask": row.new_ones(1, len(row))} for row in windows]
    how = {"iters": 0 if found[1] else 200, "nsamples": len(windows), "seqlen": windows.shape[1], "seed": job.seed}
    how |= {"batch_size": 8, "device_map": job.device, "enable_torch_compile": False, "amp": job.device != "cpu"}
    tuner = AutoRound(job.load(), job.tokenizer(), scheme=scheme, dataset=rows, **how)
    tuned, _ = tuner.quantize()  # leaves the rounded values in the model
    dense = {f"{name}.weight": layer.weight.data.float().clone() for name, layer in job.linears(tuned)}
    tuner.save_quantized(str(job.packed), format="auto_round", inplace=True)
    for file in [f for f in job.packed.rglob("*") if f.is_file() and f.parent != job.packed]:
        shutil.move(file, job.packed / file.name)  # some versions add a folder of their own
    job.dense(dense)
    return version(DISTRIBUTION)
