"""`secateur inspect`: what is in a model, read from its headers."""

from __future__ import annotations

from secateur.cli.options import Device, Json, Model, Seed


def inspect(model: Model, seed: Seed = 0, device: Device = None, as_json: Json = False) -> None:
    """What is in a model: its units, their bytes, what can be cut, what cannot and why. Reads headers only."""
    from secateur.cli import show
    from secateur.cli.frame import job

    with job(as_json) as work:
        work.say(f"reading the headers of {model}")
        from secateur.cut import inspect as look

        work.give(look(model), show.inspect)
