"""Tiny random models with a tokenizer of one token a word, and a text of such words."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch
import transformers as t
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [f"w{i}" for i in range(63)]


def save_tokenizer(folder, words=WORDS, **more):
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*words, "[UNK]"])}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    t.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", **more).save_pretrained(folder)


def llama(**more) -> t.PreTrainedConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return t.LlamaConfig(**{"vocab_size": 64, "max_position_embeddings": 64, **sizes, **ends, **more})


def save(folder, config=None, seed=0, loud=4.0, dtype=torch.float32, **tokenizer):
    """A random network whose weights are large enough that it has opinions."""
    torch.manual_seed(seed)
    network = t.AutoModelForCausalLM.from_config(config or llama())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(loud if parameter.ndim > 1 else 1.0)
    network.to(dtype).save_pretrained(folder)
    save_tokenizer(folder, **tokenizer)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """`tiny()`, `tiny(seed=1)`, `tiny(config)`: the folder of a model. `tiny.save(folder)` makes another."""
    made = {}

    def get(config=None, **more):
        key = (None if config is None else config.to_json_string(), *sorted(more.items()))
        if key not in made:
            made[key] = save(tmp_path_factory.mktemp("tiny") / "model", config, **more)
        return made[key]

    get.save, get.llama, get.save_tokenizer = save, llama, save_tokenizer
    return get


@pytest.fixture(scope="session")
def cutter():
    """`cutter(source, out, format, choose)`: the tests of the exports cut by hand."""
    file = Path(__file__).parent.parent / "export" / "conftest.py"
    spec = importlib.util.spec_from_file_location("cut_by_hand", file)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.cut_by_hand
    del sys.modules[spec.name]


@pytest.fixture(scope="session")
def words() -> list[int]:
    """The tokens of `text`."""
    draw = random.Random(0)
    return [draw.randrange(63) for _ in range(203)]


@pytest.fixture(scope="session")
def text(tmp_path_factory, words):
    """A file of 203 words, ten a line."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    lines = [" ".join(WORDS[word] for word in words[at : at + 10]) for at in range(0, len(words), 10)]
    file.write_text("\n".join(lines))
    return file


def network(folder):
    return t.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def in_transformers():
    """`in_transformers(folder, tokens)` -> log-probabilities as transformers alone computes them."""

    @torch.no_grad()
    def run(folder, tokens):
        return network(folder)(tokens, use_cache=False).logits.double().log_softmax(-1)

    return run
