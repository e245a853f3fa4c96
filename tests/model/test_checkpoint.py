"""What a folder on disk holds, and what every way of being damaged gets."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur.model.checkpoint import DTYPES, open_checkpoint
from secateur.types import ModelError


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny("llama"), tmp_path / "model")


@pytest.fixture
def shards(tiny, tmp_path):
    return shutil.copytree(tiny("llama", max_shard_size="20KB"), tmp_path / "shards")


def error(folder, **kwargs) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(folder, **kwargs)
    assert caught.value.hint
    return str(caught.value)


def rewrite_header(path, change):
    """Put another JSON header before the same data."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    text = change(header)
    text = text if isinstance(text, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize("which", ["folder", "shards"])
def test_every_tensor_is_read_as_safetensors_reads_it(which, request):
    folder = request.getfixturevalue(which)
    checkpoint = open_checkpoint(folder)
    truth = {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}
    assert set(checkpoint.tensors) == set(truth)
    for name, value in truth.items():
        assert torch.equal(checkpoint.read(name), value)
        assert checkpoint.tensors[name].shape == tuple(value.shape)
    assert checkpoint.bytes == sum(value.nbytes for value in truth.values())


def test_every_number_type_and_shape(tmp_path):
    types = [t for name, t in DTYPES.items() if name not in ("F8_E8M0",)]
    truth = {str(t): torch.arange(6).reshape(2, 3).to(t) for t in types}
    truth |= {"scalar": torch.tensor(3.5), "nothing": torch.empty(0, 4)}
    save_file(truth, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    checkpoint = open_checkpoint(tmp_path)
    for name, value in truth.items():
        got = checkpoint.read(name)
        assert got.dtype == value.dtype and got.shape == value.shape
        assert torch.equal(got.float(), value.float())


def test_some_rows(folder):
    checkpoint = open_checkpoint(folder)
    whole = checkpoint.read("lm_head.weight")
    assert torch.equal(checkpoint.read("lm_head.weight", rows=(5, 9)), whole[5:9])


def test_fingerprint_is_of_the_weights_and_not_of_where_they_lie(folder, shards, tmp_path):
    one = open_checkpoint(folder).fingerprint
    assert one == open_checkpoint(shards).fingerprint  # the same weights in many files
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert open_checkpoint(moved).fingerprint == one
    weights = load_file(moved / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, moved / "model.safetensors")
    assert open_checkpoint(moved).fingerprint != one


def test_check_finite_names_tensor_and_count(folder):
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    save_file(weights, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    checkpoint.check_finite("model.norm.weight")
    with pytest.raises(ModelError, match=r"`lm_head.weight` holds 3 NaN or infinite values of 3072"):
        checkpoint.check_finite("lm_head.weight")


def test_no_such_folder(tmp_path):
    assert "there is no folder" in error(tmp_path / "nothing")
    file = tmp_path / "file"
    file.write_text("x")
    assert "is a file, not a folder" in error(file)


def test_a_folder_that_is_no_model(tmp_path):
    assert "no config.json" in error(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "is not valid JSON" in error(tmp_path)
    (tmp_path / "config.json").write_text('{"colour": "green"}')
    assert "does not describe a model" in error(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "holds no weights" in error(tmp_path)


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "holds an adapter" in error(tmp_path)


def test_gguf_is_already_cut(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "already cut" in error(tmp_path)


def test_pickles_are_never_opened(folder):
    (folder / "model.safetensors").unlink()
    bomb = b"cos\nsystem\n(S'touch " + str(folder / "boom").encode() + b"'\ntR."
    (folder / "pytorch_model.bin").write_bytes(bomb)
    said = error(folder)
    assert "pickled" in said and "save_pretrained" in said
    assert not (folder / "boom").exists()


@pytest.mark.parametrize("keep", [4, 100, -1000])
def test_truncated(folder, keep):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:keep])
    assert f"is truncated: the file ends before the tensors that its header lists ({len(raw[:keep])} bytes)" in error(
        folder
    )


def test_truncated_after_opening(folder):
    checkpoint = open_checkpoint(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    name = max(checkpoint.tensors, key=lambda name: checkpoint.tensors[name].end)
    with pytest.raises(ModelError, match="is truncated"):
        checkpoint.read(name)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: b"not json at all",
        lambda header: header["lm_head.weight"].pop("dtype") and None,
        lambda header: header["lm_head.weight"].update(shape=[1, 1]),
        lambda header: header["lm_head.weight"].update(data_offsets=[7, 3]),
        lambda header: header.update({"lm_head.weight": 3}),
    ],
)
def test_corrupt_header(folder, change):
    rewrite_header(folder / "model.safetensors", change)
    assert "has a corrupt header" in error(folder)


def test_absurd_header_length(folder):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
    assert "has a corrupt header" in error(folder)


def test_missing_shard_is_named(shards):
    lost = sorted(shards.glob("*.safetensors"))[1]
    lost.unlink()
    assert f"names {lost.name}, which is not there" in error(shards)


def test_index_of_another_model(shards):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.7.extra"] = sorted(index["weight_map"].values())[0]
    path.write_text(json.dumps(index))
    assert "lacks `model.layers.7.extra`" in error(shards)


def test_index_cannot_lead_out_of_the_folder(shards):
    path = shards / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    assert "which is not there" in error(shards)
    path.write_text("{}")
    assert "has no `weight_map`" in error(shards)


def test_shards_without_an_index(shards):
    (shards / "model.safetensors.index.json").unlink()
    assert "no model.safetensors.index.json" in error(shards)


def test_already_quantized(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors"}
    (folder / "config.json").write_text(json.dumps(config))
    said = error(folder)
    assert "already quantized (compressed-tensors)" in said and "secateur export" in said
    assert open_checkpoint(folder, quantized=True).tensors


def test_hub_id_is_downloaded(folder, monkeypatch):
    asked = []

    def snapshot_download(name, **kwargs):
        asked.append((name, kwargs["allow_patterns"]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert open_checkpoint("some-org/some-model").folder == folder
    assert asked[0][0] == "some-org/some-model"
    assert not any("bin" in pattern for pattern in asked[0][1])


def test_hub_failure_is_one_sentence(monkeypatch):
    def snapshot_download(name, **kwargs):
        raise OSError("404 Client Error.\n\nlong story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    said = error("some-org/some-model")
    assert "did not give a model of that name: 404 Client Error." in said and "long story" not in said


def test_headers_only_until_asked(tiny):
    """Opening and describing a model reads no weights: the resident set does not grow by them."""
    code = (
        "import sys, resource\n"
        "from secateur.model.checkpoint import open_checkpoint\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "c = open_checkpoint(sys.argv[1]); c.fingerprint\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, c.bytes // 1024)\n"
    )
    folder = tiny("llama").parent / "big"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file({"a": torch.zeros(64, 1 << 18), "b": torch.zeros(64, 1 << 18)}, folder / "model.safetensors")
    out = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True, env=os.environ
    )
    grown, size = map(int, out.stdout.split())
    assert grown < size / 8
