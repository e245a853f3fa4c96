"""`secateur export`: the same network in another file format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Device, Json, Model, Out, Seed

if TYPE_CHECKING:
    from rich.console import RenderableType


def export(
    model: Model,
    out: Out,
    format: Annotated[str, typer.Option("--format", "-f", help="The file format.")] = "safetensors",
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write a model in another format and see that it loads there."""
    from secateur.cli.frame import job

    with job(as_json, out) as work:
        work.say(f"writing {model} as {format} to {out}")
        from secateur.cut import export as convert

        work.give(convert(model, format, out, tell=work.tell), _line)


def _line(result: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    from secateur.cli.show import size

    seen = f", seen to load in {result['verified_in']}" if result.get("verified_in") else ""
    return Text(f"{result['format']}: {len(result['files'])} files, {size(result['bytes_on_disk'])}{seen}")
