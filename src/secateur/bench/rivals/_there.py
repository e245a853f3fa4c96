"""The frame of a rival's run, in the rival's own interpreter: load, cut, clock, save. Nothing of ours is imported here.

A job is one JSON file; the rival's file has a function `cut(job)`. It leaves in the job's folder

    packed/    the rival's own file, as its users get it
    dense/     the values that its arithmetic sees as plain weights, where only its own reader reads the packed ones
    windows.json  instead of these, where it shortens caches: what every window lost behind its prompt
    run.json   the version, seconds, CPU seconds, peak memory
"""

from __future__ import annotations

import importlib.util
import json
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

#: what a folder needs beside its weights
BESIDE = ("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt")


@dataclass(frozen=True)
class Job:
    """One setting of one rival on one model. `tokens` is a .npy of calibration windows x length, the same as ours; for
    one that shortens caches of windows to be scored, the first `prompt` tokens of each being read before."""

    rival: Path
    setting: str
    model: Path
    tokens: Path
    out: Path
    scratch: Path  # what several settings of this rival share
    device: str = "cpu"
    seed: int = 0
    prompt: int = 0

    @property
    def packed(self) -> Path:
        return self.out / "packed"

    def load(self) -> Any:
        """The model in float32: half precision is slow on CPUs, and everybody is compared in float32."""
        import torch
        from transformers import AutoModelForCausalLM, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.manual_seed(self.seed)
        found: Any = AutoModelForCausalLM.from_pretrained(str(self.model), dtype=torch.float32, local_files_only=True)
        return found.eval().to(self.device)

    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(self.model), local_files_only=True)

    def windows(self) -> Any:
        import numpy as np
        import torch

        return torch.from_numpy(np.load(self.tokens)).long()

    def linears(self, model: Any) -> Iterator[tuple[str, Any]]:
        """The linear layers inside the blocks: what people mean by a "4-bit model"."""
        from torch import nn

        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and re.search(r"\.\d+\.", name):
                yield name, module

    def dense(self, weights: Mapping[str, Any]) -> None:
        """Leave the network with these weights, by name, as plain float32."""
        model = self.load()
        found = {name: w.to(device=self.device) for name, w in weights.items()}
        if unknown := model.load_state_dict(found, strict=False).unexpected_keys:
            raise SystemExit(f"the original has no {unknown[:3]}")
        model.save_pretrained(self.out / "dense")
        self.beside(self.out / "dense")

    def beside(self, folder: Path) -> None:
        """Add what a reader needs beside weights, where the rival has not written it."""
        for file in (file for pattern in BESIDE for file in self.model.glob(pattern)):
            if not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)


def narrowed(folder: Path, original: Path) -> None:
    """Every float32 tensor in the number type of the original: a tool that ran in float32 leaves scales and embeddings
    so, nobody would ship that, and so their bytes are not counted that way."""
    files = list(folder.glob("*.safetensors"))
    if not files or not (original / "config.json").exists():
        return
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    told = json.loads((original / "config.json").read_text())
    name = told.get("dtype") or told.get("torch_dtype") or "float16"
    for file in files:
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
            tensors = {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118
        kind = getattr(torch, name)
        save_file({k: t.to(kind) if t.dtype == torch.float32 else t for k, t in tensors.items()}, file, about)
    if (config := folder / "config.json").exists():
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": name}, indent=2) + "\n")


def spent() -> float:
    """CPU seconds of this process, all its threads and its finished children."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def peak_rss() -> int:
    """Bytes of memory at most. Where the system tells it of this program alone; else whoever started it may count."""
    try:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def module_at(path: Path) -> Any:
    """A rival's file as a module: by its path, since its folder on the search path would hide libraries it is named
    after."""
    spec = importlib.util.spec_from_file_location(f"rival_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(file: str) -> None:
    told: dict[str, Any] = json.loads(Path(file).read_text())
    paths = {field.name for field in fields(Job) if field.type == "Path"}
    told |= {name: Path(told[name]) for name in paths}
    job = Job(**told)
    shutil.rmtree(job.out, ignore_errors=True)
    job.packed.mkdir(parents=True)
    job.scratch.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    version = module_at(job.rival).cut(job)
    narrowed(job.packed, job.model)
    if job.model.is_dir() and list(job.packed.glob("*.safetensors")):
        job.beside(job.packed)
    run = {"version": version, "seconds": time.time() - begun, "cpu_seconds": spent()}
    run |= {"peak_rss_bytes": peak_rss()}
    (job.out / "run.json").write_text(json.dumps(run) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
