"""What a network is seen to make of examples: by hand, and against the network itself run on each alone."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateur.parts.eyes import Until, last, noting, places, stops, sure
from secateur.parts.eyes.opening import open_eye
from secateur.types import DataError, ModelError, SecateurError

FAMILIES = runpy.run_path(str(Path(__file__).parents[2] / "front_door" / "conftest.py"))
TEXTS = ["the old tree bends", "a", "roots grow under the red leaf and over the young stem " * 3, "cuts", "if it grows"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return FAMILIES["save"]("llama", "float32", {"max_position_embeddings": 64}, tmp_path_factory.mktemp("eye") / "m")


def opened(model: Path, data: Path, **more):
    asked = {"target": None, "samples": None, "seq_len": None, "documents": None, "device": torch.device("cpu")}
    return open_eye(str(model), data, tell=lambda *_: None, **(asked | more))


@pytest.fixture
def lines(tmp_path) -> Path:
    file = tmp_path / "pool.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    return file


def test_the_mean_of_the_places_but_the_first():
    states = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]])
    assert places(states).tolist() == [[2, 3]] and places(states[:, :1]).tolist() == [[9, 9]]


def test_the_layer_that_tells_classes_apart():
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 7), nn.Linear(7, 3), nn.ReLU())
    assert last(network, 3) is network[2] and last(network, 7) is network[1] and last(network, 5) is None


def test_how_sure_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [0.0, -math.inf]])
    found = sure(logits)
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["entropy"].tolist() == pytest.approx([math.log(2), quarter, 0])
    assert found["margin"].tolist() == pytest.approx([0, 0.5, 1])


def test_a_network_stops_where_it_is_told():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2))
    x = torch.randn(3, 4)
    assert torch.equal(Until(network, "2")(x), network[:3](x))
    assert torch.equal(network(x), nn.Sequential(*network)(x)), "and is as it was"
    shares = stops(network, x)
    assert shares["0"] == pytest.approx(16 / 88) and shares["2"] == pytest.approx(64 / 88) and "4" not in shares
    with noting(network[4]) as seen:
        network(x)
    assert torch.equal(seen[0], network[:4](x)) and not network[4]._forward_pre_hooks


def test_documents_are_seen_as_each_would_be_alone(model, lines):
    eye = opened(model, lines, seq_len=40)
    seen = eye.see()
    assert len(seen) == 5 and seen.numbers.tolist() == [0, 1, 2, 3, 4] and eye.see() is seen, "looked at once"
    assert eye.charge.forward == 5 and eye.tokens().tolist() == [len(text) for text in TEXTS], "a byte a token"
    assert eye.longer == 1
    words = eye.model.tokenizer
    for at, text in enumerate(TEXTS):
        ids = torch.tensor([words(text)["input_ids"][:40]])
        with torch.no_grad(), noting(eye.network.get_output_embeddings()) as read:
            logits = eye.network(ids).logits[0]
        torch.testing.assert_close(seen.vectors[at], places(read[0])[0], rtol=1e-4, atol=1e-5)
        before = logits[: max(len(logits) - 1, 1)]
        loss = nn.functional.cross_entropy(before, ids[0, 1:]) if len(logits) > 1 else torch.tensor(0.0)
        assert float(seen.known["loss"][at]) == pytest.approx(float(loss), rel=1e-4)
        assert float(seen.known["entropy"][at]) == pytest.approx(float(sure(before)["entropy"].mean()), rel=1e-4)
    some = eye.see(torch.tensor([1, 4]))
    torch.testing.assert_close(some.vectors, seen.vectors[[1, 4]], rtol=1e-4, atol=1e-5)
    assert some.numbers.tolist() == [1, 4] and eye.charge.forward == 7


def test_a_glance_is_what_the_block_puts_out(model, lines):
    eye = opened(model, lines)
    names = list(eye.stops)
    assert names == [f"model.layers.{i}" for i in range(len(names))] and len(names) >= 2
    assert sorted(eye.stops.values()) == list(eye.stops.values()) and 0 < eye.stops[names[0]] < 0.6
    found = eye.glance(names[0])
    ids = torch.tensor([eye.model.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        states = eye.network(ids, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(found[0], places(states)[0], rtol=1e-4, atol=1e-5)
    assert eye.charge.forward == pytest.approx(5 * eye.stops[names[0]])


def test_some_are_spread_evenly_and_shown(model, lines):
    eye = opened(model, lines, samples=2)
    assert eye.numbers.tolist() == [0, 2] and len(eye.see()) == 2
    assert eye.shown(torch.tensor([0, 1])) == ([TEXTS[0], TEXTS[2]], [])
    with pytest.raises(DataError, match="holds 5 examples, not 9"):
        opened(model, lines, samples=9)


def test_vectors_that_are_not_finite_name_the_example(model, lines):
    eye = opened(model, lines)
    with torch.no_grad():
        eye.network.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="5 of 5 examples have vectors with NaN or infinity, the first is number 0"):
        eye.see()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 255, (300, 8, 8, 3)).astype(np.uint8), draw.integers(0, 4, 300).astype(np.uint8)
    np.savez(folder / "pool.npz", images=images, labels=labels)
    np.savez(folder / "bare.npz", images=images)
    np.savez(folder / "wrong.npz", images=images, labels=labels + 1)
    (folder / "eyenet.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2), nn.ReLU(), "
        "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))\n"
        '    net.preprocessing = {"shape": (3, 8, 8), "scale": 1 / 255}\n    return net\n'
    )
    return folder


def test_pictures_are_seen_as_the_network_sees_them(pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    eye = opened(Path("eyenet:make"), pictures / "pool.npz")
    seen = eye.see()
    with np.load(pictures / "pool.npz") as held, torch.no_grad():
        x, labels = eye.model.prepare(torch.from_numpy(held["images"])), torch.from_numpy(held["labels"]).long()
    with torch.no_grad():
        logits, read = eye.network(x), eye.network[:6](x)
    torch.testing.assert_close(seen.vectors, read)
    torch.testing.assert_close(seen.known["loss"], nn.functional.cross_entropy(logits, labels, reduction="none"))
    torch.testing.assert_close(seen.known["entropy"], sure(logits)["entropy"])
    with torch.no_grad():
        torch.testing.assert_close(eye.glance("0"), eye.network[0](x).flatten(2).mean(2))
    said, small = eye.shown(torch.tensor([2, 299]))
    assert said == [f"label {int(labels[2])}", f"label {int(labels[299])}"] and len(small) == 2
    bare = opened(Path("eyenet:make"), pictures / "bare.npz", samples=7)
    assert set(bare.see().known) == {"entropy", "margin"} and bare.tokens() is None
    with pytest.raises(DataError, match=r"the label 4 in .* is none of the network's 4"):
        opened(Path("eyenet:make"), pictures / "wrong.npz").see()
    with pytest.raises(SecateurError, match="`--seq-len` is for language models"):
        opened(Path("eyenet:make"), pictures / "pool.npz", seq_len=8)


def test_each_kind_of_model_wants_its_kind_of_data(pictures, model, lines, monkeypatch):
    monkeypatch.chdir(pictures)
    with pytest.raises(DataError, match=r"holds arrays, and a language model reads text"):
        opened(model, pictures / "pool.npz")
    with pytest.raises(DataError, match=r"is not an .npz file, and an image model looks at examples"):
        opened(Path("eyenet:make"), lines)
