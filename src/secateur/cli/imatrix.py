"""`secateur imatrix`: what llama.cpp's own quantizer wants to know of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from secateur.cli.options import Data, Device, Json, Model, Out, Samples, Seed, SeqLen

if TYPE_CHECKING:
    from rich.console import RenderableType


def imatrix(
    model: Model,
    data: Data,
    out: Out,
    samples: Samples = 128,
    seq_len: SeqLen = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write an importance matrix for llama.cpp: a .gguf, or with the ending .dat the old form."""
    from secateur.cli.frame import job

    with job(as_json, out) as work:
        work.say(f"watching {model} on {samples} stretches of {data}")
        from secateur.cut.opening import open_case
        from secateur.parts.gguf.imatrix import gather, save

        case = open_case(model, data, "gguf", samples, seq_len, seed, device)
        names = case.format.names  # type: ignore[attr-defined]  # the format asked for has them
        found = gather(case.stream, case.calib, names)
        save(found, out, case.calib.numel(), data)
        work.give({"file": str(out), "tensors": len(found), "tokens": case.calib.numel()}, _line)


def _line(result: dict[str, Any]) -> RenderableType:
    return f"{result['file']}: {result['tensors']} tensors, {result['tokens']:,} tokens"
