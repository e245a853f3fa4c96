"""The command line: one command, one file, found by listing this folder and imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

#: files of this folder that are not commands
_HELPERS = {"__init__", "frame", "options", "progress", "show"}

#: the order of the help page; a file that is not named here appears under "More"
_PANELS = {
    "Cut": ("demo", "cut", "survey", "plan", "apply"),
    "Train": ("train", "draw"),
    "Look": ("inspect", "measure", "run", "bench", "report"),
    "Data": ("select",),
    "Foresee": ("law",),
    "Convert": ("export", "imatrix"),
    "The house": ("methods", "doctor"),
}


def commands() -> dict[str, str]:
    """Every command and the panel of the help page it stands in, in the order of that page."""
    found = {file.stem for file in Path(__file__).parent.glob("*.py")} - _HELPERS
    named = {name: panel for panel, names in _PANELS.items() for name in names if name in found}
    return named | dict.fromkeys(sorted(found - set(named)), "More")


def load(name: str) -> Any:
    """The command of that name, as typer runs it; its function has the name of its file."""
    alone = typer.Typer(add_completion=False)
    function = getattr(import_module(f"secateur.cli.{name}"), name)
    settings = {"help_option_names": ["-h", "--help"]}
    alone.command(name, rich_help_panel=commands()[name], context_settings=settings)(function)
    return get_command(alone)


class _Commands(TyperGroup):
    """A group that imports a command when it is asked for it: a help page needs no other command's file."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(commands())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name) if cmd_name in commands() else None


app = typer.Typer(cls=_Commands, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})


def _version(asked: bool) -> None:
    if asked:
        from secateur import __version__

        print(__version__)
        raise SystemExit(0)


@app.callback(epilog="Begin with `secateur demo`: no arguments, no downloads, three minutes.")
def secateur(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Which one is it?")
    ] = False,
) -> None:
    """Cut a network to fit: the best one we can find under your budget."""


def main() -> int:
    """Run one command and give its exit code: 0 done, 2 the user can mend it, 1 our fault, 130 interrupted."""
    try:
        get_command(app).main(args=sys.argv[1:] or ["--help"], prog_name="secateur", standalone_mode=False)
    except Exception as error:
        from secateur.cli.frame import explain

        return explain(error)
    return 0
