"""What we do not decode is said to be foreign, so that whoever can reads it; the rest is tested with the exports."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from secateur.parts.reading import ForeignError, open_reading

PLAIN = {"quant_method": "compressed-tensors", "config_groups": {}}


@pytest.fixture
def folder(tmp_path):
    save_file({"lm_head.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")

    def write(about):
        config = {"model_type": "llama", "quantization_config": about}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"quant_method": "gptq"}, "is quantized by gptq, which"),
        (PLAIN | {"quantization_status": "frozen"}, "by compressed-tensors without being compressed"),
        (PLAIN | {"transform_config": {"config_groups": {"u": {}}}}, "by compressed-tensors behind transforms"),
        (PLAIN | {"sparsity_config": {"format": "sparse-bitmask"}}, "with sparse-bitmask sparsity"),
    ],
)
def test_foreign_models_are_called_so(folder, about, message):
    with pytest.raises(ForeignError, match=message) as caught:
        open_reading(folder(about))
    assert caught.value.hint


@pytest.mark.parametrize(
    "more", [{}, {"quantization_status": "compressed", "transform_config": {}, "sparsity_config": {}}]
)
def test_what_only_has_codes_and_scales_is_read(folder, more):
    reading = open_reading(folder(PLAIN | more))
    assert torch.equal(reading.read("lm_head.weight"), torch.ones(2, 2))
