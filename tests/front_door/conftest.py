"""Tiny random models of every family as a user has them: a folder with weights, config and tokenizer, and some text."""

from __future__ import annotations

import random
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 96}
WORDS = """the a tree root stem leaf cuts grows keeps bends under over red green old young quickly slowly and or if"""


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
    """Options of a calibration that is over soon: only the way is tested."""
    return {"samples": 12, "seq_len": 32}


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    """Forty thousand characters of sentences."""
    draw = random.Random(0)
    sentences = (" ".join(draw.choices(WORDS.split(), k=draw.randint(4, 12))) for _ in range(900))
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(f"{sentence.capitalize()}." for sentence in sentences))
    return file


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[..., Path]:
    """`tiny("llama")` -> the folder of a tiny Llama in float16; more words change its config."""
    made: dict[tuple[str, ...], Path] = {}

    def get(name: str, dtype: str = "float16", **config: Any) -> Path:
        key = (name, dtype, repr(sorted(config.items())))
        if key not in made:
            made[key] = save(name, dtype, config, tmp_path_factory.mktemp("tiny") / name)
        return made[key]

    return get


def save(name: str, dtype: str, more: dict[str, Any], folder: Path, **saving: Any) -> Path:
    """Every parameter is moved off its initial zeros and ones."""
    import torch
    import transformers

    families = runpy.run_path(str(Path(__file__).parent.parent / "model" / "conftest.py"))
    config = families["CONFIGS"][name]()
    for field, value in {**SMALL, **more}.items():
        if hasattr(config, field):
            setattr(config, field, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(map(ord, name)))
        network = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    network.to(getattr(torch, dtype)).save_pretrained(folder, **saving)
    transformers.PreTrainedTokenizerFast(tokenizer_object=by_bytes()).save_pretrained(folder)
    return folder


def by_bytes():
    """A real tokenizer of 256 words: one a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = Tokenizer(models.BPE({c: at for at, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    return words
