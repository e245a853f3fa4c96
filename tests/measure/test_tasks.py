"""The harness is somebody else's: what is tested here is what we ask of it, and what happens where it is not."""

from __future__ import annotations

import sys
import types

import pytest

from secateur.measure import measure, tasks
from secateur.types import DataError, SecateurError


@pytest.fixture
def harness(monkeypatch):
    """A stand-in for lm-eval that knows one task and remembers what it was asked."""
    asked = {}

    class HFLM:
        def __init__(self, **how):
            asked["model"] = how

    class TaskManager:
        def match_tasks(self, names):
            return [name for name in names if name == "arc_easy"]

    def simple_evaluate(**how):
        asked["run"] = how
        if asked.get("offline"):
            raise ConnectionError("Couldn't reach 'allenai/ai2_arc'")
        found = {
            "sample_len": 12.0,
            "alias": "arc_easy",
            "acc,none": 0.25,
            "acc_stderr,none": 0.01,
            "exact_match,strict": 0.5,
        }
        return {"results": {"arc_easy": found}}

    parts = {
        "lm_eval": {"simple_evaluate": simple_evaluate},
        "lm_eval.tasks": {"TaskManager": TaskManager},
        "lm_eval.models": {},
        "lm_eval.models.huggingface": {"HFLM": HFLM},
    }
    for name, content in parts.items():
        module = types.ModuleType(name)
        module.__path__ = []
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    return asked


def test_without_the_harness_the_hint_says_how_to_get_it(monkeypatch, tiny, text):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    told = []
    with pytest.raises(SecateurError, match="tasks are run by lm-eval") as caught:
        measure([str(tiny())], text, tasks=["arc_easy"], tell=lambda *what: told.append(what))
    assert caught.value.hint == "pip install 'secateur[eval]'"
    assert told == []  # said before any work


def test_an_unknown_task(harness, tiny, text):
    with pytest.raises(DataError, match="lm-eval knows no task `arc_esay`") as caught:
        measure([str(tiny())], text, tasks=["arc_easy", "arc_esay"])
    assert "lm-eval ls tasks" in caught.value.hint


def test_the_hub_is_not_there(harness, tiny, text):
    harness["offline"] = True
    with pytest.raises(DataError, match="cannot get the data of arc_easy: Couldn't reach") as caught:
        measure([str(tiny())], text, tasks=["arc_easy"], seq_len=16)
    assert "from the hub" in caught.value.hint


def test_the_harness_gets_our_network_and_its_numbers_go_into_the_row(harness, tiny, text):
    (row,) = measure([str(tiny())], text, tasks=["arc_easy"], seq_len=16, seed=7)["rows"]
    assert row["tasks"] == {"arc_easy": {"acc": 0.25, "acc_stderr": 0.01, "exact_match,strict": 0.5}}
    network = harness["model"]["pretrained"]
    assert all(p.dtype.is_floating_point and p.dtype.itemsize == 4 for p in network.parameters())
    assert harness["model"]["tokenizer"]("w1 w2")["input_ids"] == [1, 2]
    assert harness["model"]["batch_size"] == tasks.BATCH
    assert harness["run"]["tasks"] == ["arc_easy"]
    assert {value for name, value in harness["run"].items() if name.endswith("_seed")} == {7}
