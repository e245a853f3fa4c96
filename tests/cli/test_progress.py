"""Progress: bars on a terminal, few lines elsewhere."""

import io

import pytest
from rich.console import Console

from secateur.cli import progress


def console(**options):
    return Console(file=io.StringIO(), highlight=False, width=100, **options)


def test_lines_are_few_and_tell_the_time_left(monkeypatch):
    clock = iter(range(0, 1000, 5))
    out = console()
    with progress._lines(out, now=lambda: next(clock)) as tell:
        for done in range(1, 11):
            tell("survey", done, 10)
    assert out.file.getvalue().splitlines() == [
        "survey: 4/10 in 15 s, about 22 s left",
        "survey: 7/10 in 30 s, about 13 s left",
        "survey: 10/10 in 45 s",
    ]


def test_bars_are_drawn_on_a_terminal():
    out = console(force_terminal=True)
    with progress.progress(out, bars=True) as tell:
        tell("survey", 1, 4)
        tell("survey", 4, 4)
        tell("apply", 2, 2)
    assert "survey" in out.file.getvalue()
    assert "4/4" in out.file.getvalue()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (4200, "1 h 10 min")],
)
def test_seconds_as_people_say_them(number, text):
    assert progress.seconds(number) == text
