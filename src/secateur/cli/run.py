"""`secateur run`: a few words from a finished file, in its own runtime."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Device, Json, Model, Seed

if TYPE_CHECKING:
    from rich.console import RenderableType


def run(
    model: Model,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What it is to go on from.", show_default=False)],
    tokens: Annotated[int, typer.Option("--tokens", "-n", min=1, help="How many tokens at most.")] = 64,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Let a model go on from a prompt: GGUF in llama.cpp, other files in transformers or with our own reader.

    Always the most likely token, so the same words every time.
    """
    from secateur.cli.frame import job

    with job(as_json) as work:
        from secateur.talk import speak

        speaker = speak(model, prompt, tokens, device)
        work.say(f"{model} in {speaker.runtime}")
        begun, said = time.time(), []
        for piece in speaker.pieces:
            said.append(piece)
            if not as_json:
                sys.stdout.write(piece if len(said) > 1 else prompt + piece)
                sys.stdout.flush()
        told = {"model": model, "runtime": speaker.runtime, "prompt": prompt, "text": "".join(said)}
        work.give(told | {"seconds": time.time() - begun}, _end)


def _end(result: dict[str, Any]) -> RenderableType:
    return ""  # it has been shown as it came
