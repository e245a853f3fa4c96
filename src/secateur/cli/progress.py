"""How far it is: a bar with the time left on a terminal, a plain line now and then everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from secateur.words import seconds

Tell = Callable[[str, int, int], None]

#: seconds between two plain lines of one stage
PAUSE = 15.0


@contextmanager
def progress(console: Console, bars: bool) -> Iterator[Tell]:
    """A function `tell(stage, done, total)` for library code to call; one stage follows another.

    `bars` draws them on `console`; without it there is a line when a stage begins to take long, and one at its end.
    """
    with _bars(console) if bars else _lines(console) as tell:
        yield tell


@contextmanager
def _bars(console: Console) -> Iterator[Tell]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown:
        tasks = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.update(tasks[stage], completed=done, total=total)

        yield tell


@contextmanager
def _lines(console: Console, now: Callable[[], float] = time.monotonic) -> Iterator[Tell]:
    begun: dict[str, float] = {}
    said: dict[str, float] = {}

    def tell(stage: str, done: int, total: int) -> None:
        at = now()
        start = begun.setdefault(stage, at)
        if done < total and at - said.setdefault(stage, start) < PAUSE:
            return
        said[stage] = at
        spent = at - start
        left = "" if done >= total or done == 0 else f", about {seconds(spent / done * (total - done))} left"
        console.print(f"{stage}: {done}/{total} in {seconds(spent)}{left}")

    yield tell
