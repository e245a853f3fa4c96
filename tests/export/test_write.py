"""Files are known to the byte beforehand, whole or not at all, and the same every time."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from safetensors import safe_open

from secateur.export import Parts, file_bytes, layout_of, write_model
from secateur.export import _write as write
from secateur.export._write import atomic, base_bytes, split, tensor_bytes
from secateur.model.checkpoint import DTYPES, open_tensors
from secateur.types import ExportError, SecateurError


def some_tensors() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        "layers.10.weight": torch.randn(3, 5, generator=random).half(),
        "layers.2.weight": torch.randn(7, 1, generator=random),
        "layers.2.codes": torch.randint(255, (11,), generator=random).to(torch.uint8),
        "norm": torch.randn(3, generator=random).bfloat16(),
        "ünïcode": torch.tensor([[1, 2]]),
        "one": torch.tensor(1.5),
        "none": torch.empty(0, 4),
        "fp8": torch.randn(2, 2, generator=random).to(torch.float8_e4m3fn),
        "exponent": torch.ones(3).to(torch.float8_e8m0fnu),
    }


def layouts_of(tensors):
    return {name: layout_of(tensor) for name, tensor in tensors.items()}


def test_size_is_known_and_the_library_reads_it(tmp_path):
    tensors = some_tensors()
    (file,) = write_model(tmp_path, layouts_of(tensors), tensors.__getitem__)
    assert file.stat().st_size == file_bytes(layouts_of(tensors))
    with safe_open(file, "pt") as read:
        assert read.metadata() == {"format": "pt"}
        assert set(read.keys()) == set(tensors)
        for name, tensor in tensors.items():
            got = read.get_tensor(name)
            assert got.dtype == tensor.dtype and got.shape == tensor.shape
            assert torch.equal(got.float(), tensor.float())


def test_data_lie_as_in_files_of_the_library(tmp_path):
    from safetensors.torch import save_file

    tensors = {k: v for k, v in some_tensors().items() if k != "ünïcode"}
    (file,) = write_model(tmp_path, layouts_of(tensors), tensors.__getitem__)
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    ours, theirs = file.read_bytes(), (tmp_path / "theirs").read_bytes()
    data = [content[8 + int.from_bytes(content[:8], "little") :] for content in (ours, theirs)]
    assert data[0] == data[1]


def test_bytes_of_a_file_are_a_sum_over_its_tensors():
    layouts = layouts_of(some_tensors()) | {"wide": ("F16", (123_456, 789_012))}
    for shard in (1 << 62, 100, 1):
        parts = len(split(layouts, shard)) * base_bytes() + sum(tensor_bytes(n, one) for n, one in layouts.items())
        assert file_bytes(layouts, shard=shard) == parts


def test_bytes_do_not_depend_on_the_order_in_which_tensors_come(tmp_path):
    tensors = some_tensors()
    write_model(tmp_path / "a", layouts_of(tensors), tensors.__getitem__)
    back = dict(reversed(tensors.items()))
    write_model(tmp_path / "b", layouts_of(back), back.__getitem__)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_shards_and_their_index(tmp_path):
    tensors = {f"layers.{i}.weight": torch.full((10, 10), float(i)) for i in range(12)}
    layouts = layouts_of(tensors)
    files = write_model(tmp_path, layouts, tensors.__getitem__, shard=1000)
    assert [f.name for f in files] == [f"model-{i:05}-of-00006.safetensors" for i in range(1, 7)]
    assert sum(f.stat().st_size for f in files) == file_bytes(layouts, shard=1000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 12 * 400
    assert index["weight_map"]["layers.2.weight"] == "model-00002-of-00006.safetensors"
    assert index["weight_map"]["layers.10.weight"] == "model-00006-of-00006.safetensors"
    assert set(open_tensors(tmp_path)) == set(tensors)


def test_a_tensor_above_the_limit_has_a_shard_of_its_own():
    layouts = {"a": ("F32", (10,)), "b": ("F32", (1000,)), "c": ("F32", (10,))}
    assert [list(one) for one in split(layouts, 100)] == [["a"], ["b"], ["c"]]


def test_files_of_an_earlier_model_are_removed(tmp_path):
    tensors = {f"layers.{i}.weight": torch.ones(10, 10) for i in range(4)}
    write_model(tmp_path, layouts_of(tensors), tensors.__getitem__, shard=1000)
    (tmp_path / "model-card.txt").write_text("mine")
    write_model(tmp_path, layouts_of(tensors), tensors.__getitem__)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model-card.txt", "model.safetensors"]


def test_what_comes_must_be_what_was_announced(tmp_path):
    with pytest.raises(ExportError, match="was priced as"):
        write_model(tmp_path, {"a": ("F16", (2,))}, lambda name: torch.ones(2))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ExportError, match="was priced at"):
        write_model(tmp_path, {"a": ("F16", (2,))}, lambda name: iter([b"123"]))
    assert list(tmp_path.iterdir()) == []


def test_parts_stitch_to_the_bytes_of_one_writing(tmp_path):
    tensors = some_tensors()
    parts = Parts(tmp_path / "parts")
    names = sorted(tensors)
    parts.save("block-0", {name: tensors[name] for name in names[:4]})
    assert parts.has("block-0") and not parts.has("block-1")
    parts.save("block-1", {name: tensors[name] for name in names[4:]})
    assert parts.layouts(["block-0", "block-1"]) == layouts_of(tensors)
    parts.stitch(["block-0", "block-1"], tmp_path / "stitched")
    write_model(tmp_path / "whole", layouts_of(tensors), tensors.__getitem__)
    one, other = (tmp_path / folder / "model.safetensors" for folder in ("stitched", "whole"))
    assert one.read_bytes() == other.read_bytes()
    parts.clear()
    assert not (tmp_path / "parts").exists()


def test_parts_refuse_a_tensor_twice(tmp_path):
    parts = Parts(tmp_path)
    parts.save("a", {"w": torch.ones(1)})
    parts.save("b", {"w": torch.ones(1)})
    with pytest.raises(ExportError, match="`w` is in two pieces, a and b"):
        parts.stitch(["a", "b"], tmp_path / "out")


def test_stitching_holds_a_few_megabytes_whatever_the_tensor(tmp_path, monkeypatch):
    asked = []
    real = write.copied

    def spied(entry, size=1 << 24):
        for chunk in real(entry, 1024):
            asked.append(len(chunk))
            yield chunk

    monkeypatch.setattr(write, "copied", spied)
    parts = Parts(tmp_path / "parts")
    parts.save("a", {"w": torch.arange(10_000.0)})
    parts.stitch(["a"], tmp_path)
    assert max(asked) == 1024 and sum(asked) == 40_000


class Full:
    """A disk with room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_disk_full_is_a_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    real = write.Path.open

    class Opened:
        def __init__(self, path, mode):
            self.file = real(path, mode)

        def __enter__(self):
            return Full(self.file, 100)

        def __exit__(self, *_):
            self.file.close()

    monkeypatch.setattr(
        write.Path, "open", lambda path, mode="r": Opened(path, mode) if "w" in mode else real(path, mode)
    )
    tensors = {"a": torch.ones(1000)}
    with pytest.raises(SecateurError, match=r"(?s)the disk is full: .*model.safetensors.*hint: make room"):
        write_model(tmp_path, layouts_of(tensors), tensors.__getitem__)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and [f.name for f in tmp_path.iterdir()] == ["file"]


def test_every_type_that_we_read_we_can_name():
    assert all(layout_of(torch.empty(1, dtype=dtype))[0] == name for name, dtype in DTYPES.items())
