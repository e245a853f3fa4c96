"""mergekit: layers left out by its passthrough merge, a run of them before the last one, and nothing healed.

Which run: the one that ends right before the last layer, the simple rule of arXiv 2403.17887, which needs no text.
There the network is trained a little afterwards; here, as with all rivals, nothing is.
"""

from __future__ import annotations

from typing import Any

NAME = "mergekit"
DISTRIBUTION = "mergekit"
FORMAT = "safetensors"
#: what ours must have on its menu to meet such a file: plain numbers, fewer of them
EDITS = ("channels", "heads", "drop")
#: how many layers go; of a network with fewer than that, none of the larger
SETTINGS = tuple(f"drop{layers}" for layers in range(1, 33))
SHAPE = r"drop([1-9]\d?)"


def bits(setting: str, rows: int, cols: int) -> float:
    """Weights that stay are as they were."""
    return 16.0


def gone(setting: str, depth: int) -> range | None:
    """The layers that go, of so many; None where more are to go than lie before the last one."""
    first = depth - 1 - int(setting[4:])
    return range(first, depth - 1) if first >= 0 else None


def cut(job: Any) -> str:
    """One slice of the layers before the run and one of the last, in the number type of the original."""
    import json
    from importlib.metadata import version

    config = json.loads((job.model / "config.json").read_text())
    depth = config.get("text_config", config)["num_hidden_layers"]
    if (run := gone(job.setting, depth)) is None:
        raise SystemExit(f"{job.setting} would leave nothing of a network of {depth} layers")
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    left = [(first, behind) for first, behind in ((0, run.start), (run.stop, depth)) if first < behind]
    slices = [{"sources": [{"model": str(job.model), "layer_range": list(one)}]} for one in left]
    dtype = config.get("dtype") or config.get("torch_dtype") or "float16"
    asked = MergeConfiguration.model_validate({"merge_method": "passthrough", "dtype": dtype, "slices": slices})
    run_merge(asked, str(job.packed), MergeOptions(copy_tokenizer=True, quiet=True))
    return version(DISTRIBUTION)
