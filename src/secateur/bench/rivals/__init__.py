"""Tools of others that cut models too, to be met on the user's own model at the same bytes. One file, one tool.

A file says what its tool is called, which settings it knows from the largest file to the smallest, and how it cuts:

    NAME, FORMAT, SETTINGS    its name; the format of ours that its files are met in; its settings
    SHAPE                     a pattern of every setting that may be asked for by name
    bits(setting, rows, cols) about how many bits a weight of such a matrix will take
    gone(setting, depth)      where it leaves layers out: which of so many, or None where the network has too few
    EDITS                     kinds of edits that ours need to meet such files
    PROMPT, left(setting)     where it shortens the cache of what was read and cuts no file: the share of every window
                              that is read before, and the share of its cache that stays (`bench/presses.py`)
    cut(job) -> version       runs in the tool's own interpreter, as a process (`_there.py` is its frame)
    DISTRIBUTION              what must be installed there, with MORE beside it; or functions `version()` and `get()`
                              where it is no package

Their pins clash with ours and with each other, so each may live in an environment of its own:
`--rival-python autoround=/path/to/venv/bin/python`, or the environment's `SECATEUR_RIVAL_AUTOROUND`. Without either,
the interpreter that runs us is asked.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from secateur.bench.rivals._there import module_at
from secateur.catalogue import docstring, nearest
from secateur.types import SecateurError

HERE = Path(__file__).parent
#: `SECATEUR_RIVAL_AUTOROUND=/path/to/python`
WHERE = "SECATEUR_RIVAL_{}"
#: seconds that a rival may take where nobody says
LIMIT = 4 * 3600.0
#: rows, columns, and the block that a matrix lies in, None outside of them
Matrix = tuple[int, int, int | None]


class RivalError(SecateurError):
    """A rival did not do its job; the message says how it ended and where its words are."""


@dataclass(frozen=True)
class Rival:
    """One tool of others, and the interpreter that it is looked for in."""

    file: Path
    python: str = sys.executable

    @cached_property
    def own(self) -> Any:
        """Its file as a module of ours: what it says of itself, without its library."""
        return module_at(self.file)

    @property
    def name(self) -> str:
        return self.own.NAME

    @property
    def sentence(self) -> str:
        return docstring(self.file.read_text(encoding="utf-8")).partition("\n")[0]

    @property
    def format(self) -> str:
        return self.own.FORMAT

    @property
    def settings(self) -> tuple[str, ...]:
        return self.own.SETTINGS

    @property
    def pictures(self) -> bool:
        """Whether it cuts image models, and not language models."""
        return getattr(self.own, "PICTURES", False)

    @property
    def quick(self) -> bool:
        return getattr(self.own, "QUICK", False)

    def version(self) -> str | None:
        """Of what is installed in its interpreter; None where nothing is."""
        if hasattr(self.own, "version"):
            return self.own.version()
        if self.python == sys.executable:
            return _here(self.own.DISTRIBUTION)
        code = f"from importlib.metadata import version; print(version({self.own.DISTRIBUTION!r}))"
        try:
            said = subprocess.run([self.python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return said.stdout.strip() or None

    def get(self) -> str:
        """How to have it, in one line."""
        if hasattr(self.own, "get"):
            return self.own.get()
        place = f"v-{_plain(self.name)}"
        wanted = " ".join([self.own.DISTRIBUTION, *getattr(self.own, "MORE", ())])
        made = f"`python -m venv {place} && {place}/bin/pip install {wanted}`"
        return f"{made}, then --rival-python {self.name}={place}/bin/python or {_variable(self.name)}"

    def bits(self, setting: str, rows: int, cols: int) -> float:
        return self.own.bits(setting, rows, cols)

    def linear(self, setting: str) -> str:
        """The setting that leaves embeddings and head in 16 bits, where others do not."""
        return getattr(self.own, "linear", lambda setting: setting)(setting)

    @property
    def prompt(self) -> float:
        """The share of every window that it reads before it shortens the cache; 0 for those that cut files."""
        return getattr(self.own, "PROMPT", 0.0)

    @property
    def edits(self) -> tuple[str, ...]:
        return getattr(self.own, "EDITS", ())

    def payload(self, setting: str, matrices: Sequence[Matrix], rest: float) -> float | None:
        """About how many bytes of tensors its file will hold, None where the network is too shallow for the setting;
        `rest` is what else the model holds. What lies outside the blocks stays at 16 bits with most of them."""
        whole = getattr(self.own, "WHOLE", False) and "+" not in setting
        depth = 1 + max((block for *_, block in matrices if block is not None), default=-1)
        gone = getattr(self.own, "gone", lambda *_: ())(setting, depth)
        if gone is None:
            return None
        left = (one for one in matrices if one[2] not in gone)
        return rest + sum(
            r * c * (self.bits(setting, r, c) if whole or at is not None else 16.0) / 8 for r, c, at in left
        )


def names() -> list[str]:
    return [rival.name for rival in every({})]


def every(pythons: Mapping[str, str]) -> Iterator[Rival]:
    """All rivals there are, installed or not, each with the interpreter it is to be looked for in."""
    for file in sorted(HERE.glob("*.py")):
        if not file.stem.startswith("_"):
            name = Rival(file).name
            yield Rival(file, pythons.get(name) or os.environ.get(_variable(name)) or sys.executable)


def find(words: str, pythons: Mapping[str, str]) -> tuple[Rival, str | None]:
    """`autoround`, or `autoround:w4g128`, which asks for that setting and no other."""
    name, colon, setting = words.strip().partition(":")
    known = {_plain(rival.name): rival for rival in every(pythons)}
    rival = known.get(_plain(name))
    if rival is None:
        close = nearest(name, [one.name for one in known.values()])
        hint = f"did you mean `{close}`?" if close else f"there are {', '.join(one.name for one in known.values())}"
        raise SecateurError(f"there is no rival `{name}`", hint)
    if colon and not re.fullmatch(rival.own.SHAPE, setting):
        raise SecateurError(f"{rival.name} has no setting `{setting}`", f"there are {', '.join(rival.settings)}")
    return rival, setting if colon else None


def interpreters(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=PATH` as names and paths, the names as the rivals have them."""
    found = {}
    for text in texts:
        name, equals, path = (part.strip() for part in text.partition("="))
        if not (equals and path):
            raise SecateurError(
                f"cannot read `--rival-python {text}`", "write it like autoround=/path/to/venv/bin/python"
            )
        if not Path(path).is_file():
            raise SecateurError(f"there is no interpreter {path}", "give the path of the environment's bin/python")
        found[find(name, {})[0].name] = str(Path(path).absolute())
    return found


def _here(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _plain(name: str) -> str:
    """`llama.cpp`, `llama_cpp` and `Llamacpp` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _variable(name: str) -> str:
    return WHERE.format(_plain(name).upper())


def run(
    rival: Rival,
    setting: str,
    out: Path,
    *,
    model: Path,
    tokens: Path,
    device: str,
    seed: int,
    limit: float = LIMIT,
    prompt: int = 0,
) -> dict[str, Any]:
    """Let a rival cut a model with one setting into `out`, as a process of its own; what it says of the run.

    `tokens` are what it calibrates on; where it shortens caches what it is measured on, the first `prompt` of each read
    before.

    RivalError where it crashes, takes more than `limit` seconds, or leaves no file; its words are in `out`.log.
    """
    job = {"rival": rival.file, "setting": setting, "model": model, "tokens": tokens, "out": out}
    job |= {"scratch": out.parent / f"{_plain(rival.name)}-shared", "device": device, "seed": seed, "prompt": prompt}
    out.parent.mkdir(parents=True, exist_ok=True)
    asked, log = out.with_name(f"{out.name}.job.json"), out.with_name(f"{out.name}.log")
    asked.write_text(json.dumps({k: str(v.absolute()) if isinstance(v, Path) else v for k, v in job.items()}) + "\n")
    # by its path and not from its folder: a script's own folder would come first on the search path, and our `hqq.py`
    # would hide the library
    code = f"import runpy, sys; sys.argv = ['', {str(asked.absolute())!r}]; "
    code += f"runpy.run_path({str(HERE / '_there.py')!r}, run_name='__main__')"
    with log.open("w", encoding="utf-8") as said:
        how = {"stdout": said, "stderr": said, "stdin": subprocess.DEVNULL, "env": _around(rival, device)}
        child = subprocess.Popen([rival.python, "-c", code], cwd=out.parent, start_new_session=True, **how)
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            raise RivalError(
                f"took more than {limit:g} seconds", f"its words are in {log}; --rival-limit gives more time"
            ) from None
        finally:  # its workers go with it
            _end(child)
    if status:
        raise RivalError(f"{_ended(status)}: {_last(log)}", f"its words are in {log}")
    if not list(out.glob("windows.json" if rival.prompt else "packed/*.*")) or not (out / "run.json").exists():
        raise RivalError("left no file", f"its words are in {log}")
    return json.loads((out / "run.json").read_text())


def _around(rival: Rival, device: str) -> dict[str, str]:
    """Its environment: offline, on the device that was asked for; our own package only where it is our interpreter, or
    the rival cuts networks of ours."""
    found = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if device == "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ""
    ours = rival.python == sys.executable or getattr(rival.own, "OURS", False)
    paths = [str(HERE.parents[2])] if ours else []
    found["PYTHONPATH"] = os.pathsep.join(paths)
    return found


def _end(child: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the whole group has ended
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with {status}"


def _last(log: Path) -> str:
    """What it said last, which most often is why."""
    said = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return said[-1][:200] if said else "it did not say why"
