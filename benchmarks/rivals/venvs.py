"""Make one pinned environment a rival: `python venvs.py DIR [llmcompressor autoround hqq kvpress ...]` -> DIR/v-<name>.

One each, because the rivals want different transformers. Every version is pinned in `pins/<name>.txt`, torch among
them: left alone, pip may take a CUDA build that a machine without a GPU cannot use. What is there is kept.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def python_of(folder: Path, name: str) -> Path:
    return folder / f"v-{name}" / "bin" / "python"


def make(folder: Path, name: str) -> None:
    """Create one environment from its pins, unless it is there."""
    pins = HERE / "pins" / f"{name}.txt"
    if not pins.exists():
        known = ", ".join(sorted(p.stem for p in pins.parent.glob("*.txt")))
        raise SystemExit(f"no such rival: {name}\nhint: one of {known}")
    python = python_of(folder, name)
    if python.exists():
        print(f"{name}: {python.parent.parent} is there")
        return
    venv.create(python.parent.parent, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip", "setuptools", "wheel"], check=True)
    subprocess.run([*pip, "--requirement", str(pins)], check=True)
    print(f"{name}: {python.parent.parent} made")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    for wanted in sys.argv[2:] or sorted(p.stem for p in (HERE / "pins").glob("*.txt")):
        make(Path(sys.argv[1]), wanted)
