"""What vLLM runs: a compressed-tensors file with only those edits for which it has kernels.

Symmetric integers of 4 and 8 bits with scales of the model's own type, FP8, NVFP4 and MXFP4, on linear layers and the
head; one scheme for what it fuses (q/k/v, gate/up, experts: units here anyway). One-byte scales and fractional zero
points, which halve the damage at 2 and 3 bits, are not among them: `--format compressed-tensors` has those, for
transformers. Read in vLLM's source and not run here, since it needs a GPU; what is seen is that transformers loads it.
"""

from __future__ import annotations

from secateur.export.compressed_tensors import CompressedTensors
from secateur.parts.edits.fp8 import Fp8
from secateur.parts.edits.half import Half
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.parts.edits.mxfp4 import Mxfp4
from secateur.parts.edits.nvfp4 import Nvfp4

FOURS = tuple(Int(4, group) for group in (32, 64, 128))
EDITS = (Keep(), Half(), *FOURS, Int(8, 128), Int(8, 0), Fp8(), Mxfp4(), Nvfp4())


def Vllm(dtype: str = "bfloat16", tied: str = "", model_type: str = "") -> CompressedTensors:
    """The format for one model; see `CompressedTensors`."""
    return CompressedTensors(dtype, tied, model_type, name="vllm", only=EDITS)
