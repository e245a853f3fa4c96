"""Tasks of the evaluation harness (lm-eval), run on our decoded weights: an adapter around somebody else's package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from secateur.types import DataError, SecateurError

#: sentences scored at once
BATCH = 8


def check(tasks: Sequence[str]) -> None:
    """SecateurError if the harness is not installed, DataError if it does not know a task: said before long work."""
    known = _harness().tasks.TaskManager().match_tasks
    for task in tasks:
        if not known([task]):
            raise DataError(f"lm-eval knows no task `{task}`", "`lm-eval ls tasks` lists them")


def run(network: nn.Module, tokenizer: Any, tasks: Sequence[str], seed: int = 0) -> dict[str, dict[str, float]]:
    """Every task's metrics and their standard errors, as the harness computes them."""
    harness = _harness()
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), seed)
    model = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=BATCH)
    try:
        found = harness.simple_evaluate(model=model, tasks=list(tasks), bootstrap_iters=1000, **seeds)
    except OSError as error:
        raise DataError(
            f"lm-eval cannot get the data of {', '.join(tasks)}: {error}",
            "tasks are downloaded from the hub when first run",
        ) from error
    return {task: _metrics(metrics) for task, metrics in found["results"].items()}


def _metrics(found: dict[str, Any]) -> dict[str, float]:
    """The numbers among what is called after metric and filter; `acc,none` becomes `acc`."""
    numbers = {name: value for name, value in found.items() if "," in name and isinstance(value, int | float)}
    return {name.removesuffix(",none"): float(value) for name, value in numbers.items()}


def _harness() -> Any:
    try:
        import lm_eval  # pyright: ignore[reportMissingImports]
        import lm_eval.tasks  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SecateurError(
            f"tasks are run by lm-eval, which cannot be imported ({error})", "pip install 'secateur[eval]'"
        ) from error
    return lm_eval
