"""Ctrl-C is heeded at the next step where a library has let its exception fall."""

from __future__ import annotations

import os
import signal

import pytest

from secateur.cli.frame import heeded


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C as a terminal's own job hears it, whoever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_was_swallowed_is_raised_at_the_next_step():
    seen = []
    with heeded(lambda *step: seen.append(step)) as tell:
        tell("reading", 0, 2)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            tell("reading", 1, 2)
    assert seen == [("reading", 0, 2)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_listens_already_goes_on_listening():
    mine = []
    before = signal.signal(signal.SIGINT, lambda *_: mine.append(1))
    try:
        with heeded(print):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert mine == [1]
