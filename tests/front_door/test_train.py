"""One training, many sizes, by the front door: trained, killed and taken up, drawn, written, loaded."""

from __future__ import annotations

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur.cut import inspect
from secateur.measure import measure
from secateur.model.builtin import find
from secateur.model.history import History
from secateur.model.resume import Keep
from secateur.report import figures, report
from secateur.train import draw, train
from secateur.types import BudgetError, DataError, ModelError, SecateurError

QUICK = {"steps": 6, "batch": 4, "seq_len": 32, "lr": 3e-3}


class Killed(Exception):
    """Somebody pulled the plug."""


def digest(folder) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def model(tiny):
    return str(tiny("llama", num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2))


@pytest.fixture(scope="module")
def trained(model, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "out"
    return out, train(model, str(text), out=out, elastic="width,heads:2,depth:2", **QUICK)


def test_a_training_leaves_the_model_its_history_and_what_was_done(trained, model):
    out, told = trained
    history = History.load(out)
    assert history is not None and history.steps == list(range(1, 7)) and history.held_steps == history.steps
    assert history.tokens[-1] == told["read"] == 6 * 2 * 4 * 31
    assert told["about"]["method"] == "sortednet" and told["loss_after"] == told["slices"][-1]["loss"]
    assert told["loss_after"] == pytest.approx(history.held_losses[-1], abs=1e-6)
    assert told["bytes_on_disk"] == (out / "model.safetensors").stat().st_size
    assert inspect(str(out))["units"] == inspect(model)["units"]
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (model, out))
    assert {name: (v.dtype, v.shape) for name, v in before.items()} == {n: (v.dtype, v.shape) for n, v in after.items()}
    assert not (out / ".train").exists()


def test_its_report_shows_how_the_loss_went(trained, tmp_path):
    out, _ = trained
    page = report(out).read_text()
    assert "trained" in page and "<svg" in page and "held out" in page and "What its slices lose" in page
    assert [file.name for file in figures(out, tmp_path)] == ["training.svg", "slices.svg"]


def test_a_killed_training_ends_with_the_same_bytes(trained, model, text, tmp_path, monkeypatch):
    monkeypatch.setattr("secateur.train.Keep", partial(Keep, pause=0.0))
    how = {"elastic": "width,heads:2,depth:2", **QUICK}

    def kill(stage, done, total):
        if stage == "training" and done == 4:
            raise Killed

    with pytest.raises(Killed):
        train(model, str(text), out=tmp_path / "out", tell=kill, **how)
    assert not (tmp_path / "out" / "config.json").exists()
    with pytest.raises(DataError, match="steps 6 and not 7"):
        train(model, str(text), out=tmp_path / "out", **how | {"steps": 7})
    steps = []
    told = train(
        model,
        str(text),
        out=tmp_path / "out",
        tell=lambda s, d, _: s == "training from step 4" and steps.append(d),
        **how,
    )
    assert steps == [1, 2] and told["resumed"] and digest(tmp_path / "out") == digest(trained[0])
    again = train(model, str(text), out=tmp_path / "out", tell=lambda *_: pytest.fail("nothing is left to do"), **how)
    assert again["resumed"] and again["slices"] == told["slices"]


@pytest.fixture(scope="module")
def drawn(trained, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "small"
    how = {"data": str(text), "samples": 8, "seq_len": 32}
    return out, draw(str(trained[0]), ["60% flops", "150 KB", "100% flops"], out=out, **how)


def test_drawn_slices_are_within_their_budgets_and_load_as_they_are(drawn, trained):
    from transformers import AutoModelForCausalLM

    out, told = drawn
    flops, size, whole = told["rows"]
    assert flops["flops"] <= 0.6 * told["whole"]["flops"] and size["bytes"] <= 150_000
    assert whole["slice"] == told["whole"]["slice"] and whole["loss"] == told["whole"]["loss"]
    for row in told["rows"]:
        folder = out / {"60% flops": "60-flops", "150 KB": "150-kb", "100% flops": "100-flops"}[row["budget"]]
        assert str(folder) == row["out"] and row["bytes"] == (folder / "model.safetensors").stat().st_size
        assert row["logit_error"] == 0.0, "bit for bit what the supernet says"
        network = AutoModelForCausalLM.from_pretrained(folder)
        assert len(network.model.layers) == (4 if row["slice"]["depth"] == 1 else 2)
        assert sum(p.numel() for p in network.parameters()) == row["parameters"]
    assert digest(out / "100-flops") == digest(trained[0])


def test_what_draw_measures_is_what_measure_measures(drawn, text):
    _, told = drawn
    rows = measure([row["out"] for row in told["rows"]], str(text), samples=8, seq_len=32)["rows"]
    for ours, theirs in zip(told["rows"], rows, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def test_without_data_the_largest_is_taken(trained):
    told = draw(str(trained[0]), ["60% flops"])
    assert "loss" not in told["rows"][0] and told["rows"][0]["flops"] <= 0.6 * told["whole"]["flops"]
    whole = told["whole"]["kv"]
    assert draw(str(trained[0]), [f"kv {whole // 2} B/token"])["rows"][0]["kv"] == whole // 2


def test_what_the_user_can_mend(trained, model, text, tmp_path):
    out = str(trained[0])
    with pytest.raises(BudgetError, match=r"no slice fits `1% flops`: the smallest slice .* takes"):
        draw(out, ["1% flops"])
    with pytest.raises(BudgetError, match="no slice has a price in `seconds`"):
        draw(out, ["20 ms"])
    with pytest.raises(ModelError, match="was not trained to be of several sizes"):
        draw(model, ["50% flops"])
    assert draw(model, ["90% flops"], elastic="width")["rows"][0]["slice"] == {"width": 0.75}
    for options, word in (
        ({"steps": 1, "tokens": 5}, "both say how long"),
        ({"method": "sortednet"}, "nothing is said to be"),
        ({"method": "gptq", "elastic": "width"}, "trains no network"),
        ({"elastic": "length"}, "cannot read the axis"),
        ({"elastic": "width", "policy": "best"}, "no policy"),
        ({"schedule": "steep"}, "no schedule"),
        ({"precision": "int4"}, "no precision"),
        ({"augment": "flip"}, "cannot be varied"),
        ({"batch": 10_000}, "a batch of 10000"),
        ({"seq_len": 10_000}, "do not fit a context"),
    ):
        with pytest.raises(SecateurError, match=word):
            train(model, str(text), out=tmp_path / "out", **{"seq_len": 32, **options})
    with pytest.raises(SecateurError, match="is the model itself"):
        train(out, str(text), out=out, **QUICK)
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(DataError, match="windows"):
        train(model, str(tmp_path / "short.txt"), out=tmp_path / "out", seq_len=32)


def test_how_long_can_be_said_in_three_ways_and_a_teacher_and_chance_to_begin_with(model, text, tmp_path):
    how = {"batch": 4, "seq_len": 32}
    by_tokens = train(model, str(text), out=tmp_path / "a", tokens=4 * 31 * 3, teacher="self", **how)
    assert by_tokens["steps"] == 3 and by_tokens["about"]["passes"] == 1 and by_tokens["slices"][0]["slice"] == {}
    n = train(model, str(text), out=tmp_path / "b", epochs=0.01, scratch=True, **how)
    assert n["steps"] >= 1 and n["loss_before"] > 4.5, "weights of chance know nothing"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """ResNet-14 of random weights, and pictures whose class is their colour."""
    place = tmp_path_factory.mktemp("resnet")
    shape = {"conv1.weight": (8, 3, 3, 3), "linear.weight": (3, 32), "linear.bias": (3,)}
    for stage, (wide, before) in enumerate(((8, 8), (16, 8), (32, 16)), 1):
        for at in (0, 1):
            shape[f"layer{stage}.{at}.conv1.weight"] = (wide, before if at == 0 else wide, 3, 3)
            shape[f"layer{stage}.{at}.conv2.weight"] = (wide, wide, 3, 3)
    torch.manual_seed(0)
    network = find("resnet").build(shape)
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    save_file(state, place / "resnet14.safetensors")
    draw_ = np.random.default_rng(0)
    labels = draw_.integers(3, size=400)
    images = draw_.integers(0, 120, size=(400, 32, 32, 3))
    images[np.arange(400), :, :, labels] += 100
    np.savez(place / "data.npz", images=images.astype(np.uint8), labels=labels)
    return str(place / "resnet14.safetensors"), str(place / "data.npz")


def test_image_models_are_trained_and_drawn_with_statistics_of_their_own(resnet, tmp_path):
    model, data = resnet
    told = train(
        model,
        data,
        out=tmp_path / "out",
        elastic="width:2,depth:2",
        augment="flip,shift:2",
        steps=12,
        batch=16,
        lr=2e-3,
    )
    assert told["each"] == "example" and told["slices"][-1]["accuracy"] > 0.5
    with pytest.raises(DataError, match="--data"):
        draw(str(tmp_path / "out"), ["60% flops"])
    drawn = draw(str(tmp_path / "out"), ["60% flops"], data=data, out=tmp_path / "small")
    (row,) = drawn["rows"]
    assert row["logit_error"] == 0.0 and row["flops"] <= 0.6 * drawn["whole"]["flops"]
    assert row["bytes"] == (tmp_path / "small" / "model.safetensors").stat().st_size
    assert row["accuracy"] > 0.5
    found = measure([str(tmp_path / "small")], data)["rows"][0]
    assert found["accuracy"] > 0.5
    assert json.loads((tmp_path / "small" / "config.json").read_text())["model_type"] == "secateur_resnet"
