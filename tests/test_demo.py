"""The demo's model: text that is there, a model that loads, made once and the same from the same seed."""

import hashlib
import math

import pytest
import torch

from secateur import demo
from secateur.model.history import History


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(demo, "STEPS", 3)
    monkeypatch.setattr(demo, "ENOUGH", 100_000)
    monkeypatch.setattr(demo, "BATCH", 2)


def test_the_library_falls_into_three_piles_that_share_no_file():
    training, calibration, heldout = demo.library()
    assert len(training) > 1_000_000
    assert min(len(calibration), len(heldout)) > 100_000
    assert calibration[:2000] not in training
    assert heldout[:2000] not in training
    assert calibration[:2000] != heldout[:2000]


def test_it_is_made_once_and_loads(quick, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told = []
    model, calibration, heldout = demo.prepare(tmp_path / "demo", seed=1, tell=lambda *words: told.append(words))
    assert told == [("training", 1, 3), ("training", 2, 3), ("training", 3, 3)]
    loaded = AutoModelForCausalLM.from_pretrained(model)
    assert loaded.dtype == torch.float16
    text = "def cut(network, budget):\n    return 'smaller'\n"
    words = AutoTokenizer.from_pretrained(model)
    assert words.decode(words(text)["input_ids"]) == text
    assert calibration.read_text().strip()
    assert heldout.read_text().strip()
    demo.prepare(tmp_path / "demo", seed=1, tell=lambda *words: told.append(words))
    assert len(told) == 3


def test_the_model_says_how_it_was_trained(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "LOOK", 2)
    model, *_ = demo.prepare(tmp_path)
    history = History.load(model)
    assert history is not None and history.steps == [1, 2, 3] and history.held_steps == [2, 3]
    assert history.tokens == [2 * demo.CONTEXT * step for step in (1, 2, 3)] and history.seconds > 0
    assert all(abs(loss - math.log(demo.VOCABULARY)) < 0.5 for loss in (*history.losses, *history.held_losses))


def test_same_seed_same_bytes(quick, tmp_path):
    digests = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        model, *_ = demo.prepare(tmp_path / name, seed=seed)
        digests.append(hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_a_broken_training_leaves_no_model(quick, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.prepare(tmp_path, tell=stop)
    assert not (tmp_path / "model").exists()
    assert demo.prepare(tmp_path)[0].is_dir()


def test_the_loop_learns(quick, monkeypatch, tmp_path):
    """Sixty steps take the loss a nat below that of a model that knows nothing, on text it has not seen."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(demo, "STEPS", 60)
    model, calibration, _ = demo.prepare(tmp_path)
    words = AutoTokenizer.from_pretrained(model)
    ids = torch.tensor(words(calibration.read_text()[:20_000])["input_ids"])
    ids = ids[: len(ids) // 128 * 128].view(-1, 128)
    with torch.no_grad():
        loss = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(ids, labels=ids).loss
    assert loss < math.log(demo.VOCABULARY) - 1
