"""`secateur report`: the page that a cut leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.options import Device, Json, Seed

if TYPE_CHECKING:
    from rich.console import RenderableType


def report(
    out: Annotated[Path, typer.Argument(help="The folder that `secateur cut` wrote.", show_default=False)],
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser, where there is one.")] = True,
    figures: Annotated[
        Path | None, typer.Option(help="Write the figures as SVG into this folder, too.", show_default=False)
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write the report of a cut as one page, and open it; of a run that broke off, it shows what is there."""
    from secateur.cli.frame import job

    with job(as_json, out) as work:
        work.say(f"writing the report of {out}")
        from secateur.report import report as write

        page = write(out)
        told: dict[str, Any] = {"report": str(page)}
        if figures is not None:
            from secateur.report import figures as draw

            told["figures"] = [str(file) for file in draw(out, figures)]
        work.give(told, _line)
        if show and not as_json:
            import webbrowser

            webbrowser.open(page.resolve().as_uri())


def _line(result: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    return Text("\n".join([result["report"], *result.get("figures", ())]))
