"""llama.cpp: its own mixes of block types, with an importance matrix of the same text."""

from __future__ import annotations

import re
from typing import Any

NAME = "llama.cpp"
FORMAT = "gguf"
#: all of the network follows the mix, embeddings and head too
WHOLE = True
#: a file takes a moment, so that every size is tried and none is guessed
QUICK = True
#: its name for a mix -> `enum llama_ftype` of llama.h, and about how many bits a weight that comes to
MIXES = {
    "q8_0": (7, 8.5), "q6_k": (18, 6.56), "q5_k_m": (17, 5.7), "q5_k_s": (16, 5.5), "q4_k_m": (15, 4.9),
    "q4_k_s": (14, 4.6), "iq4_nl": (25, 4.5), "iq4_xs": (30, 4.3), "q3_k_l": (13, 4.2), "q3_k_m": (12, 3.9),
    "iq3_m": (27, 3.7), "iq3_s": (26, 3.5), "q3_k_s": (11, 3.45), "iq3_xs": (22, 3.3), "iq3_xxs": (23, 3.1),
    "q2_k": (10, 2.9), "iq2_m": (29, 2.7), "iq2_s": (28, 2.5), "iq2_xs": (20, 2.4), "iq2_xxs": (19, 2.1),
    "iq1_m": (31, 1.8),
}  # fmt: skip
SETTINGS = tuple(MIXES)
#: leaves embeddings and head in 16 bits
APART = "+f16emb"
SHAPE = f"({'|'.join(MIXES)})({re.escape(APART)})?"


def bits(setting: str, rows: int, cols: int) -> float:
    """About how many: which layers get more is llama.cpp's own business."""
    return MIXES[setting.partition("+")[0]][1]


def linear(setting: str) -> str:
    """Its mixes take embeddings and head with them, unless they are told not to."""
    return setting if setting.endswith(APART) else setting + APART


def version() -> str | None:
    """Where it is, is known to us: it is no Python package."""
    from secateur.measure import llamacpp

    return llamacpp.version()


def get() -> str:
    from secateur.measure import llamacpp

    return llamacpp.GET


def cut(job: Any) -> str:
    """The 16-bit file and the importances serve all mixes. `+f16emb` leaves embeddings and head as they are,
    so that only the layers inside the blocks differ."""
    from secateur.measure import llamacpp

    first, noted = job.scratch / "f16" / "model.gguf", job.scratch / "importance.npz"
    if not (first.exists() and noted.exists()):
        _prepare(job, noted)
    mix, _, apart = job.setting.partition("+")
    llamacpp.quantize(first, job.packed / "model.gguf", MIXES[mix][0], noted, bool(apart))
    return str(llamacpp.version())


def _prepare(job: Any, noted: Any) -> None:
    """The file that llama.cpp starts from, and the mean squared inputs of its layers on the calibration windows."""
    import numpy as np
    import torch

    from secateur import export
    from secateur.model.disk import atomic
    from secateur.model.stream import Stream
    from secateur.parts.gguf.imatrix import gather
    from secateur.parts.reading import open_uncut

    export.export_folder(str(job.model), "gguf", job.scratch / "f16")
    checkpoint = open_uncut(str(job.model))
    stream = Stream(checkpoint, torch.device(job.device))
    names = export.find("gguf", checkpoint.config, stream.anatomy, checkpoint).names  # type: ignore[attr-defined]
    found: dict[str, Any] = gather(stream, job.windows(), names)
    with atomic(noted) as file:
        np.savez(file, **found)
