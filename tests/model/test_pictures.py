"""Examples from .npz files: what is prepared how, what is refused in which words, how they are parted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.model.pictures import Prepare, parted, read_pictures
from secateur.types import DataError, ModelError


@pytest.fixture
def put(tmp_path):
    def write(**arrays):
        file = tmp_path / "data.npz"
        np.savez(file, **arrays)
        return file

    return write


def some(n=40, shape=(4, 5, 3)):
    draw = np.random.default_rng(0)
    return {"images": draw.integers(0, 256, (n, *shape), dtype=np.uint8), "labels": (np.arange(n) % 7).astype(np.uint8)}


def test_prepare_by_hand():
    prepare = Prepare((2, 1, 1), 0.5, (1.0, 2.0), (2.0, 4.0))
    stored = torch.tensor([[[[4, 8]]]], dtype=torch.uint8)  # one example, one pixel, two channels last
    assert prepare(stored).flatten().tolist() == [0.5, 0.5]  # (2 - 1) / 2, (4 - 2) / 4
    assert torch.equal(prepare(stored.movedim(-1, 1)), prepare(stored))
    assert Prepare.of(prepare.told()) == prepare


def test_one_channel_needs_no_axis():
    assert Prepare((1, 3, 2), 1.0)(torch.zeros(5, 3, 2)).shape == (5, 1, 3, 2)


def test_shapes_that_the_network_does_not_take():
    with pytest.raises(DataError, match=r"of shape \[8, 8, 3\], and the network takes \[3, 32, 32\]"):
        Prepare((3, 32, 32))(torch.zeros(1, 8, 8, 3))
    with pytest.raises(ModelError, match="preprocessing cannot be read"):
        Prepare.of({"mean": [1.0]})


def test_all_of_a_file(put):
    arrays = some()
    found = read_pictures(put(**arrays), 7)
    assert len(found) == 40 and found.labels.tolist() == arrays["labels"].tolist()
    assert np.array_equal(found.x.numpy(), arrays["images"])
    assert found[:3].digest() != found[1:4].digest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.arange(39)}, "40 examples and 39 labels"),
        ({"labels": np.arange(40) - 1}, "the label -1"),
        ({"labels": np.arange(40)}, "the label 39"),
        ({"labels": np.zeros(40)}, "`labels` in .* is float64"),
        ({"images": np.array(["a"] * 40)}, "not numbers"),
        ({"images": np.full((40, 4, 4, 3), np.nan, np.float32)}, "NaN or infinity"),
        ({"images": np.zeros((0, 4, 4, 3)), "labels": np.zeros(0, np.int64)}, "no examples"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_data_is_said_in_words(put, change, words):
    with pytest.raises(DataError, match=words):
        read_pictures(put(**{**some(), **change}), 7)


def test_files_that_hold_no_examples(put, tmp_path):
    with pytest.raises(DataError, match="lacks `labels`"):
        read_pictures(put(images=some()["images"]))
    with pytest.raises(DataError, match="lacks `images` \\(it holds x, labels\\)"):
        read_pictures(put(x=np.zeros(3), labels=np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="there is no file"):
        read_pictures(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        read_pictures(tmp_path / "text.txt")
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"cannot be read as an \.npz"):
        read_pictures(tmp_path / "bad.npz")


def test_objects_are_never_unpickled(put):
    with pytest.raises(DataError, match="cannot be read"):
        read_pictures(put(images=np.array([{}] * 40, dtype=object), labels=np.zeros(40, np.uint8)))


def test_parts_share_nothing_and_are_drawn_by_the_seed(put):
    data = some(100)
    data["images"][:, 0, 0, 0] = np.arange(100)  # a name for every example
    pictures = read_pictures(put(**data))
    parts = parted(pictures, None, 0)
    assert [len(part) for part in parts] == [64, 16, 20]
    assert sorted(int(x[0, 0, 0]) for part in parts for x in part.x) == list(range(100))
    again, other = parted(pictures, None, 0), parted(pictures, None, 1)
    assert torch.equal(parts[0].x, again[0].x) and not torch.equal(parts[0].x, other[0].x)
    with pytest.raises(DataError, match="100 examples are too few for 90"):
        parted(pictures, 90, 0)
