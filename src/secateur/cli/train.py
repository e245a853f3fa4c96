"""`secateur train`: a model learns a text or pictures, and with --elastic many sizes of it at once."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from secateur.cli.options import Data, Device, Fresh, Json, Model, Out, Seed

_LONG, _STEP, _HOW = "How long", "A step", "How"


def train(
    model: Model,
    data: Data,
    out: Out,
    elastic: Annotated[
        str,
        typer.Option(
            help="What is of several sizes: width, heads, depth, several with commas; in quarters, width:8 in eighths.",
            show_default=False,
        ),
    ] = "",
    method: Annotated[
        str | None,
        typer.Option(help="How slices are trained; sortednet where something is elastic.", show_default=False),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Which slices a step trains: uniform, sandwich, fair, or whole (none).")
    ] = "uniform",
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A model whose answers are learned as well; `self` is the model before training.", show_default=False
        ),
    ] = None,
    augment: Annotated[
        str, typer.Option(help="How pictures are varied from pass to pass: flip, shift:4, or both.", show_default=False)
    ] = "",
    scratch: Annotated[bool, typer.Option("--scratch", help="Begin with weights of chance.")] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help="300 if nothing is said.", show_default=False, rich_help_panel=_LONG)
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Or so many tokens (examples) read.", show_default=False, rich_help_panel=_LONG),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(min=0.0, help="Or the data so many times.", show_default=False, rich_help_panel=_LONG),
    ] = None,
    lr: Annotated[float, typer.Option(min=0.0, help="The rate at its highest.", rich_help_panel=_STEP)] = 1e-3,
    schedule: Annotated[
        str, typer.Option(help="How the rate falls: cosine, linear, constant.", rich_help_panel=_STEP)
    ] = "cosine",
    warm: Annotated[
        int | None,
        typer.Option(min=0, help="Steps until it is there; 5%.", show_default=False, rich_help_panel=_STEP),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Examples of a pass; 16 windows or 64 pictures.", show_default=False, rich_help_panel=_STEP
        ),
    ] = None,
    passes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Passes whose gradients make a step, each with a slice of its own; 2 if elastic, else 1.",
            show_default=False,
            rich_help_panel=_STEP,
        ),
    ] = None,
    seq_len: Annotated[
        int | None,
        typer.Option(
            min=2, help="Tokens in a window; the context, up to 256.", show_default=False, rich_help_panel=_STEP
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, float32, or bfloat16 (weights stay float32).", rich_help_panel=_HOW)
    ] = "auto",
    fresh: Fresh = False,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Train a model, and with --elastic many sizes of it at once: `secateur draw` takes out one that fits.

    A run that broke off goes on where it stopped, and ends with the same bytes. The report shows how the loss went.
    """
    from secateur.cli import show
    from secateur.cli.frame import again, job

    with job(as_json, out, resumes=True) as work:
        asked = f", elastic in {elastic.replace(',', ', ')}" if elastic else ""
        work.say(f"training {model} on {data}{asked}; it goes to {out}")
        from secateur.report import report
        from secateur.train import train as learn

        how = {
            "elastic": elastic,
            "method": method,
            "policy": policy,
            "teacher": teacher,
            "augment": augment,
            "scratch": scratch,
        }
        how |= {"steps": steps, "tokens": tokens, "epochs": epochs, "lr": lr, "schedule": schedule, "warm": warm}
        how |= {"batch": batch, "passes": passes, "seq_len": seq_len, "precision": precision, "seed": seed}
        told = learn(model, data, out=out, **how, device=device, resume=not fresh, tell=work.tell)
        work.give(told | {"again": again(), "report": str(report(out))}, show.trained)
        if elastic:
            sizes = sorted(row["flops"] for row in told["slices"])
            share = -(-100 * sizes[len(sizes) // 2] // sizes[-1])
            words = ["secateur", "draw", str(out), "--budget", f"{share}% flops", "-o", f"{out}-small"]
            words += ["--data", data] if told["each"] == "example" else []  # which renew a slice's statistics
            work.then = shlex.join(words)
