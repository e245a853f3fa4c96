"""The folder where unfinished work lies, so that a killed run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.model.disk import atomic
from secateur.types import SecateurError


def work_folder(out: Path, resume: bool, key: Mapping[str, Any]) -> tuple[Path, bool]:
    """Where unfinished work lies, and whether this job left some. That of another job (its key differs) goes first."""
    work, said = out / ".work", json.dumps(key, sort_keys=True, default=str)
    job = work / "job.json"
    try:
        taken_up = resume and job.exists() and job.read_text() == said
        if work.exists() and not taken_up:
            shutil.rmtree(work)
        if not taken_up:
            with atomic(job) as file:
                file.write(said.encode())
    except OSError as error:
        raise SecateurError(f"cannot write to {out}: {error.strerror}", "give another folder with -o") from error
    return work, taken_up
