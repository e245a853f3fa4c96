"""What every test may use: the shared folder where there is one, and the command line as a real process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# before anything imports torch or transformers: one thread a process, no network, no advice
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, models and data that nobody here wrote; skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder `shared` beside the repository")
    return folder


@pytest.fixture(scope="session")
def llama() -> None:
    """For tests that run files in the real llama.cpp; skips where it is not installed."""
    from secateur.measure import llamacpp

    if llamacpp.folder() is None:
        pytest.skip(f"llama.cpp is not here: {llamacpp.GET}")


@pytest.fixture(scope="session")
def secateur() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`secateur("cut", "model", ...)` runs the command line as a process of its own and gives what it said."""

    def run(*words: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "secateur", *map(str, words)]
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
        around = {**os.environ, "PYTHONPATH": path, **env}
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=around, timeout=600, check=False)

    return run
