"""The options that several commands share, each spelled and explained once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="A folder in Hugging Face layout, a hub id, a .safetensors file of a built-in image network, or "
        "`package.module:function` that returns a network.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        help="A text file, a .jsonl, .parquet or .csv with a text column, a folder, or hf:name; for image models an "
        ".npz with `images` and `labels`.",
        show_default=False,
    ),
]
BudgetText = Annotated[
    str,
    typer.Option(
        "--budget",
        "-b",
        help='"4.25 bits/weight", "300 MB", "60% flops, 2 GB", "kv 24 KB/token", "20 ms" ...',
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.", show_default=False)]

Seed = Annotated[int, typer.Option(help="Same seed, same machine, same bytes.", rich_help_panel="How")]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1 ...; the best there is if not said.", show_default=False, rich_help_panel="How"
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, nothing else there.", rich_help_panel="How")
]
Samples = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How many stretches of text (128 if not said) or examples (up to 4,000) to calibrate on.",
        show_default=False,
        rich_help_panel="Calibration",
    ),
]
SeqLen = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Tokens in a stretch; as the model was made for, up to 2048, if not said.",
        show_default=False,
        rich_help_panel="Calibration",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew; otherwise finished work is taken up.")]

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="The file format, which decides what may be on the menu; compressed-tensors if not said, packed for image "
        "models and for what compressed-tensors cannot hold (GPT-2).",
        show_default=False,
    ),
]
Over = Annotated[
    str,
    typer.Option(
        help="What is cut and counted: `all`, or `linear` for the linear layers inside the blocks only.",
        rich_help_panel="What",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave these units as they are; may be repeated.",
        metavar="PATTERN",
        show_default=False,
        rich_help_panel="What",
    ),
]
Pin = Annotated[
    list[str] | None,
    typer.Option(
        help='Fix the edit of these units, as in "*.down_proj=int(bits=4, group=64)"; may be repeated.',
        metavar="PATTERN=EDIT",
        show_default=False,
        rich_help_panel="What",
    ),
]
Edits = Annotated[
    str,
    typer.Option(
        help="What may be on the menu: bits, sparse, rank, armor, channels, heads, drop, experts, several with commas, "
        "or all.",
        rich_help_panel="What",
    ),
]
Damage = Annotated[
    str,
    typer.Option(help="How damage is predicted: kronecker, or output (cheaper, and less).", rich_help_panel="Method"),
]
Allocate = Annotated[str, typer.Option(help="Who decides which unit gets how much.", rich_help_panel="Method")]
Round = Annotated[
    str, typer.Option("--round", help="How a weight finds its place on the grid.", rich_help_panel="Method")
]


def unsaid(context: typer.Context, recipe: Path, keys: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a recipe says and the command line does not."""
    from secateur.recipe import CUT, load

    def said(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    return {name: value for name, value in load(recipe, keys or CUT).items() if not said(name)}


def stretches(samples: int | None) -> str:
    """How much of the data is asked for, in words."""
    return "a part" if samples is None else f"{samples} samples"


def pins(texts: list[str] | None) -> dict[str, str]:
    """`PATTERN=EDIT` as patterns and edits; an edit may hold further equals signs, a pattern may not."""
    from secateur.types import SecateurError

    found = {}
    for text in texts or ():
        pattern, equals, edit = (part.strip() for part in text.partition("="))
        if not (pattern and equals and edit):
            raise SecateurError(
                f"cannot read `--pin {text}`", 'write it like --pin "*.down_proj=int(bits=4, group=64)"'
            )
        found[pattern] = edit
    return found
