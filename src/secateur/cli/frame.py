"""What surrounds every command: where its words go, how it fails, and the line to do it again.

Data goes to stdout, everything said on the way to stderr. What the user can mend ends with a hint and exit code 2; what
is our fault ends with a traceback, a word on what is safe on disk, and exit code 1.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from secateur.cli.progress import Tell

DONE, OURS, YOURS, INTERRUPTED = 0, 1, 2, 130


@dataclass
class Job:
    """What a command gets to speak with: `say` on the way, `tell` for progress, `give` for the result.

    `out` is what it writes, `then` the command that one would give next.
    """

    tell: Tell
    console: Console
    out: Path | None = None
    then: str = ""
    results: list[tuple[Any, Callable[[Any], RenderableType]]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.console.print(text)

    def give(self, result: Any, draw: Callable[[Any], RenderableType]) -> None:
        """The result: as JSON with `--json`, else drawn. It is shown when the progress has left the screen."""
        self.results.append((result, draw))


@contextmanager
def job(as_json: bool, out: Path | None = None, resumes: bool = False) -> Iterator[Job]:
    """Run the body as a command. `out` is what it writes; `resumes`: the same command takes up a broken run."""
    from secateur.cli.progress import progress

    _settle_in()
    console = chatter()
    work = Job(lambda *_: None, console, out)
    try:
        with progress(console, bars=console.is_terminal and not as_json) as tell, heeded(tell) as work.tell:
            yield work
        for result, draw in work.results:
            _put(result, draw, as_json)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        raise SystemExit(explain(error, on_disk(work.out, resumes))) from None
    if work.then:
        console.print(f"next:  {work.then}", style="dim")
    console.print(f"again: {again()}", style="dim")


@contextmanager
def heeded(tell: Tell) -> Iterator[Tell]:
    """Progress that stops after Ctrl-C even where a library, in the middle of its import, lets the exception fall."""
    asked: list[int] = []

    def ask(number: int, _: Any) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    def told(*step: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        tell(*step)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() is not main_thread():
        yield tell  # somebody else listens, or nobody shall
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def again() -> str:
    """This very command, ready to be pasted into a shell."""
    return shlex.join(["secateur", *sys.argv[1:]])


def on_disk(out: Path | None, resumes: bool) -> str:
    """One sentence on what a run that broke off leaves behind."""
    if out is None:
        return "nothing was being written"
    if not out.exists():
        return f"nothing was written to {out}"
    kept = f"the files in {out} are whole" if out.is_dir() else f"{out} is whole"
    return f"{kept}; the same command goes on from there" if resumes else kept


def explain(error: BaseException, safe: str = "") -> int:
    """Say on stderr what went wrong, and give the exit code."""
    console = chatter()
    if isinstance(error, BrokenPipeError):  # `secateur methods | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        console.print(f"stopped{'; ' + safe if safe else ''}")
        return INTERRUPTED
    found = _mendable(error, safe)
    if found is None:
        console.print("".join(traceback.format_exception(error)).rstrip())
        console.print(f"this is a fault in secateur{'; ' + safe if safe else ''}", style="bold")
        return OURS
    message, hint = found
    console.print("error: ", style="bold red", end="")
    console.print(message)
    console.print(f"hint: {hint or f'`{_help()}` tells what this command takes'}")
    return YOURS


def _mendable(error: BaseException, safe: str) -> tuple[str, str] | None:
    """What is wrong and what to do about it, if that is for the user to do."""
    from secateur.types import SecateurError

    if isinstance(error, SecateurError):
        return error.message, error.hint
    if hasattr(error, "format_message"):  # typer's own: a wrong option, a missing argument, an unknown command
        return _usage(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        at = f" at {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"the disk is full{at}; {safe}", "free some room there, then give the same command again"
    if isinstance(error, OSError) and error.filename is not None and _named(error.filename):
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}", "check the path and who may use it"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "there is not enough memory for this", "take fewer --samples, a shorter --seq-len, or --device cpu"
    if isinstance(error, ModuleNotFoundError):
        from secateur.catalogue import runtime

        needed = runtime((error.name or "").partition(".")[0])
        return (f"this needs `{needed.name}`, which is not installed", needed.get) if needed else None
    return None


def _usage(error: Any) -> tuple[str, str]:
    message = error.format_message().rstrip(".")
    if "No such command" not in message:
        return message, ""
    from secateur.catalogue import nearest
    from secateur.cli import commands

    close = nearest(message.split("'")[1], commands())
    return message, f"did you mean `secateur {close}`?" if close else "`secateur --help` lists the commands"


def _named(path: Any) -> bool:
    """Whether a path is one that the user gave, or lies under one."""
    given = [Path(word).absolute() for word in sys.argv[1:] if not word.startswith("-")]
    return any(Path(os.fsdecode(path)).absolute().is_relative_to(word) for word in given)


def _help() -> str:
    words = [word for word in sys.argv[1:2] if not word.startswith("-")]
    return " ".join(["secateur", *words, "--help"])


def chatter() -> Console:
    """The console on stderr: plain words, no markup, no colours where nobody sees them."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _put(result: Any, draw: Callable[[Any], RenderableType], as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(plain(result), ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120  # a pipe or a file has no width of its own
    with console.capture() as drawn:
        console.print(draw(result))
    sys.stdout.write(drawn.get())


def plain(value: Any) -> Any:
    """The same in what JSON knows: numbers that are none become null, arrays lists, paths text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays
        return plain(value.tolist())
    return str(value)


def _settle_in() -> None:
    """What must be said before torch and transformers are imported; the user's own environment wins.

    Threads that wait for each other sleep instead of spinning: on a machine with other work, spinning made two threads
    ten times slower than one (docs/log.md). Other libraries' bars and advice stay off the screen.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
