"""ONNX of standard operators alone: 4- and 8-bit blocks dequantized in the graph, for runtimes without Microsoft's own.

The same as `onnx` otherwise: `DequantizeLinear` and `MatMul` stand where that has `MatMulNBits`. It needs opset 21.
ONNX Runtime fuses the pair into its own product when it loads the file, and may then round inputs to 8 bits
(`session.qdq_matmulnbits_accuracy_level`); the check runs it with inputs as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from torch import Tensor

from secateur.export import _standard
from secateur.export._graph import FILE
from secateur.export._verify import compare
from secateur.export.onnx import Onnx, run
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import Edit

__all__ = ["OnnxQdq"]


@dataclass(frozen=True)
class OnnxQdq(Onnx):
    """`source` is the uncut model: without one the format only tells what it can hold."""

    name: str = "onnx-qdq"
    pictures: ClassVar[bool] = False
    operators: ClassVar[ModuleType] = _standard
    opset: ClassVar[int] = _standard.OPSET

    def edits(self) -> tuple[Edit, ...]:
        groups = {4: (32, 64, 128, 256), 8: (64, 128)}
        ints = [Int(bits, group, even) for bits, some in groups.items() for group in some for even in (True, False)]
        return (Keep(), *ints)

    def verify(self, folder: Any, reference_logits: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        """Run the file in ONNX Runtime, with inputs as they are."""
        import onnxruntime

        said = f"onnxruntime {onnxruntime.__version__}"
        logits = run(folder / FILE, tokens)
        if reference_logits is None:
            return {"verified_in": f"{said} (run, nothing compared)", "logit_error": None}
        return {"verified_in": said, "logit_error": compare(logits, reference_logits, folder)}
