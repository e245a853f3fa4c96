"""By the front door: tiny models against what transformers alone computes, and what bad input gets."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file

from secateur.measure import measure, rows
from secateur.parts.edits.int import Int
from secateur.parts.edits.keep import Keep
from secateur.types import DataError, ModelError, SecateurError

KEYS = {"model", "loss", "perplexity", "kl", "agreement", "bytes", "bits_per_weight", "seconds", "tokens"}


def one(model, data, **how):
    (row,) = measure([str(model)], data, **how)["rows"]
    return row


def windows(words, length):
    n = len(words) // length
    return torch.tensor(words[: n * length]).reshape(n, length)


def loss(log_p, tokens):
    return -log_p[:, :-1].gather(-1, tokens[:, 1:, None]).mean().item()


SMALL = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": None}
FAMILIES = {
    "llama": lambda: None,
    "gpt2": lambda: t.GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "opt": lambda: t.OPTConfig(
        **SMALL,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=16,
        max_position_embeddings=64,
        pad_token_id=1,
    ),
    "mistral": lambda: t.MistralConfig(
        **SMALL,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=5,
    ),
    # its layers hand on more than hidden states: it is read as a whole
    "rwkv": lambda: t.RwkvConfig(**SMALL, hidden_size=32, num_hidden_layers=2, context_length=64),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_what_transformers_computes(tiny, text, words, in_transformers, family):
    config = FAMILIES[family]()
    model, other = tiny(config), tiny(config, seed=1)
    tokens = windows(words, 16)
    p, q = in_transformers(other, tokens), in_transformers(model, tokens)
    row = one(model, text, against=str(other), seq_len=16)
    assert set(row) >= KEYS
    assert row["tokens"] == 12 * 15
    assert row["loss"] == pytest.approx(loss(q, tokens), abs=1e-5)
    assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))
    assert row["rise"] == pytest.approx(loss(q, tokens) - loss(p, tokens), abs=1e-5)
    assert row["kl"] == pytest.approx((p.exp() * (p - q)).sum(-1)[:, :-1].mean().item(), rel=1e-4)
    assert row["agreement"] == pytest.approx((p.argmax(-1) == q.argmax(-1))[:, :-1].double().mean().item())
    assert ("read as a whole" in (row["note"] or "")) == (family == "rwkv")
    assert row["kl"] > 0.01 and row["agreement"] < 1  # two networks, not one


def test_a_model_against_itself_and_against_its_copy(tiny, text, tmp_path):
    shutil.copytree(tiny(), tmp_path / "copy")
    for reference in (tiny(), tmp_path / "copy"):
        row = one(tiny(), text, against=str(reference), seq_len=32)
        assert row["kl"] == row["rise"] == row["kl_error"] == 0
        assert row["agreement"] == 1


def test_without_a_reference_nothing_is_compared(tiny, text):
    row = one(tiny(), text, seq_len=32)
    assert {row[key] for key in ("kl", "kl_error", "agreement", "rise", "rise_error", "note")} == {None}
    assert row["loss_error"] > 0
    assert row["seconds"] > 0 and row["tokens_per_second"] > 0 and row["peak_rss_bytes"] > 1e7


def test_several_models_are_rows_in_order_with_their_own_numbers(tiny, text):
    models = [str(tiny(seed=1)), str(tiny()), str(tiny(seed=1))]
    found = measure(models, text, against=str(tiny()), seq_len=32)
    assert [row["model"] for row in found["rows"]] == models
    assert found["rows"][1]["kl"] == 0
    assert found["rows"][0]["kl"] == found["rows"][2]["kl"] > 0
    for row in found["rows"]:
        alone = one(row["model"], text, against=str(tiny()), seq_len=32)
        assert (alone["loss"], alone["kl"]) == (row["loss"], row["kl"])


def test_sliding_by_a_window_is_disjoint_and_by_less_has_more_context(tiny, text, words, in_transformers):
    disjoint = one(tiny(), text, seq_len=16)
    assert one(tiny(), text, seq_len=16, stride=16)["loss"] == disjoint["loss"]
    slid = one(tiny(), text, seq_len=16, stride=4)
    tokens = torch.stack([torch.tensor(words[at : at + 16]) for at in range(0, len(words) - 15, 4)])
    log_p = in_transformers(tiny(), tokens)[:, 11:-1].gather(-1, tokens[:, 12:, None])
    assert slid["loss"] == pytest.approx(-log_p.mean().item(), abs=1e-5)
    assert slid["tokens"] == 4 * len(tokens)


@pytest.mark.parametrize("room", [1, 64 * 5, 64 * 40])
def test_pieces_of_any_size_add_up(tiny, text, monkeypatch, room):
    usual = one(tiny(), text, against=str(tiny(seed=1)), seq_len=16)
    monkeypatch.setattr(rows, "ROOM", room)
    row = one(tiny(), text, against=str(tiny(seed=1)), seq_len=16)
    assert row["loss"] == pytest.approx(usual["loss"], abs=1e-6)
    assert row["kl"] == pytest.approx(usual["kl"], rel=1e-5)


def test_a_first_token_before_every_window(tiny, text, words, in_transformers):
    folder = tiny(tiny.llama(initializer_range=0.03), bos_token="w62")
    tokens = torch.cat([torch.full((13, 1), 62), windows(words, 15)], 1)
    row = one(folder, text, seq_len=16, bos=True)
    assert row["loss"] == pytest.approx(loss(in_transformers(folder, tokens), tokens), abs=1e-5)
    assert row["tokens"] == 13 * 15
    with pytest.raises(DataError, match="has no token that begins a text"):
        one(tiny(), text, bos=True)


def test_bytes_and_bits_of_a_plain_model(tiny, text):
    folder = tiny(dtype=torch.float16)
    row = one(folder, text, seq_len=32)
    assert row["bytes"] == (folder / "model.safetensors").stat().st_size
    assert row["bits_per_weight"] == 16


def test_bits_per_byte_by_hand(tiny, text):
    row = one(tiny(), text, seq_len=64)  # three windows: words 1 to 63, 65 to 127, 129 to 191
    read = text.read_text().split()
    spelled = sum(len(word) + 1 for at, word in enumerate(read[:192]) if at % 64)
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * row["tokens"] / math.log(2) / spelled)


# other tokens


def test_other_tokens_are_compared_by_the_byte_only(tiny, text, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny(), other)
    tiny.save_tokenizer(other, words=[f"w{i}" for i in reversed(range(63))])
    found = measure([str(tiny()), str(other)], text, against=str(tiny()), seq_len=32)
    same, odd = found["rows"]
    assert same["note"] is None and not found["same_tokens"]
    assert odd["kl"] is None and odd["agreement"] is None and odd["rise"] is None
    assert f"not those of {tiny()}" in odd["note"]
    assert odd["bits_per_byte"] > 0 and odd["loss"] != same["loss"]
    first, second = measure([str(tiny()), str(other)], text, seq_len=32)["rows"]
    assert first["note"] is None and "bits per byte" in second["note"]


def test_another_vocabulary_than_the_reference(tiny, text):
    wide = tiny(tiny.llama(vocab_size=70))
    with pytest.raises(ModelError, match=r"among 70 tokens .* among 64, so there is no KL") as caught:
        measure([str(wide)], text, against=str(tiny()), seq_len=32)
    assert caught.value.hint
    assert [row["tokens"] for row in measure([str(wide), str(tiny())], text, seq_len=32)["rows"]] == [186, 186]


def test_a_tokenizer_with_more_tokens_than_the_network(tiny, text):
    with pytest.raises(ModelError, match="gives token 62, but the model has only 50"):
        one(tiny(tiny.llama(vocab_size=50)), text, seq_len=32)


# cut models


@pytest.mark.parametrize("format", ["packed", "compressed-tensors", "safetensors"])
def test_a_cut_model_is_measured_as_it_decodes(tiny, text, words, cutter, tmp_path, format):
    if format == "compressed-tensors":
        pytest.importorskip("compressed_tensors")
    source = tiny(dtype=torch.float16)
    made = cutter(source, tmp_path, format, lambda form, unit: _cheapest(form, unit))
    tiny.save_tokenizer(tmp_path)
    row = one(tmp_path, text, against=str(source), seq_len=16)
    tokens = windows(words, 16)
    network = t.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    state = {m.tensor: made.values[m.key] for unit in made.units for m in unit.matrices}
    network.load_state_dict(state, strict=False)
    with torch.no_grad():
        log_p = network(tokens).logits.double().log_softmax(-1)
    assert row["loss"] == pytest.approx(loss(log_p, tokens), abs=1e-5)
    assert row["kl"] > 1e-4
    files = list(tmp_path.glob("*.safetensors"))
    assert row["bytes"] == sum(file.stat().st_size for file in files)
    weights = sum(p.numel() for p in network.parameters())
    payload = sum(tensor.nbytes for file in files for tensor in load_file(file).values())
    assert row["bits_per_weight"] == pytest.approx(8 * payload / weights)
    assert (row["bits_per_weight"] == 16) == (format == "safetensors")


def _cheapest(form, unit):
    return next((edit for edit in (Int(3, 32), Int(8, 0)) if form.refuses(unit, edit) is None), Keep())


def test_activations_that_only_the_runtime_rounds_are_mentioned(tiny, text, cutter, tmp_path):
    cutter(tiny(dtype=torch.float16), tmp_path, "compressed-tensors", _cheapest)
    tiny.save_tokenizer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for group in config["quantization_config"]["config_groups"].values():
        group["input_activations"] = {"num_bits": 8, "type": "float", "dynamic": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "rounds activations too" in one(tmp_path, text, seq_len=16)["note"]


def quantized(source, folder, about):
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": about}))
    return folder


def test_what_others_quantized_is_read_by_transformers(tiny, text, words, in_transformers, tmp_path):
    """DeepSeek's 8-bit floats in blocks: transformers decodes them without a GPU."""
    about = {"quant_method": "fp8", "weight_block_size": [16, 16], "modules_to_not_convert": ["lm_head"]}
    folder = quantized(tiny(), tmp_path / "fp8", about)
    plain = tmp_path / "plain"
    shutil.copytree(tiny(), plain)
    weights = load_file(folder / "model.safetensors")
    stored, decoded = dict(weights), dict(weights)
    for name in [name for name in weights if "proj" in name]:
        rows_, cols = weights[name].shape
        blocks = weights[name].reshape(rows_ // 16, 16, cols // 16, 16)
        scale = blocks.abs().amax((1, 3)) / 448
        codes = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        stored[name], stored[f"{name}_scale_inv"] = codes.reshape(rows_, cols), scale
        decoded[name] = (codes.float() * scale[:, None, :, None]).reshape(rows_, cols)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(decoded, plain / "model.safetensors", metadata={"format": "pt"})
    row = one(folder, text, against=str(plain), seq_len=16)
    assert row["kl"] < 1e-6
    assert "read as a whole" in row["note"]
    payload, n = sum(x.nbytes for x in stored.values()), sum(x.numel() for x in weights.values())
    assert row["bits_per_weight"] == pytest.approx(8 * payload / n)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 32},
            "is quantized by gptq, and transformers cannot read it",
        ),
        ({"quant_method": "hqx"}, "hqx"),
    ],
)
def test_what_nobody_here_can_decode(tiny, text, tmp_path, about, message):
    folder = quantized(tiny(), tmp_path / "odd", about)
    weights = load_file(folder / "model.safetensors")
    codes = {name.replace("weight", "codes") if "proj" in name else name: x for name, x in weights.items()}
    save_file(codes, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message) as caught:
        one(folder, text, seq_len=16)
    assert caught.value.hint


# bad input


def test_a_network_that_reads_both_ways_has_no_loss(tiny, text):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    with pytest.raises(ModelError, match="sees the tokens that it is to predict"):
        one(tiny(t.BertConfig(vocab_size=64, max_position_embeddings=64, **sizes)), text, seq_len=16)


def test_too_little_text(tiny, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("w1 w2 w3 w4 w5")
    with pytest.raises(DataError, match=r"short.txt gives only 5 tokens, not one window of 64\nhint: .*--seq-len 5"):
        one(tiny(), short)
    assert one(tiny(), short, seq_len=5)["loss_error"] == math.inf


def test_longer_than_the_context(tiny, text):
    with pytest.raises(DataError, match=r"longer than the context of .* which is 64\nhint: --seq-len 64"):
        one(tiny(), text, seq_len=65)


@pytest.mark.parametrize(
    ("value", "message"),
    [(math.nan, "`lm_head.weight` holds 1 NaN"), (1e38, "the weights of .* are finite, its losses")],
)
def test_numbers_that_are_none(tiny, text, tmp_path, value, message):
    shutil.copytree(tiny(), tmp_path / "bad")
    weights = load_file(tmp_path / "bad" / "model.safetensors")
    weights["lm_head.weight"][3] = value if value > 1 else weights["lm_head.weight"][3]
    weights["lm_head.weight"][3, 1] = value
    save_file(weights, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message) as caught:
        one(tmp_path / "bad", text, seq_len=16)
    assert caught.value.hint


def test_a_truncated_shard(tiny, text, tmp_path):
    shutil.copytree(tiny(), tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is truncated"):
        one(tmp_path / "cut", text)


def test_pictures_and_texts_do_not_mix(tiny, text, tmp_path):
    vit = tmp_path / "vit"
    t.ViTForImageClassification(
        t.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    ).save_pretrained(vit)
    with pytest.raises(ModelError, match="image models"):
        one(vit, text)
    with pytest.raises(DataError, match="a language model reads text"):
        one(tiny(), tmp_path / "pictures.npz")


def test_there_is_no_such_device(tiny, text):
    with pytest.raises(SecateurError, match="there is no device `toaster` here"):
        one(tiny(), text, seq_len=16, device="toaster")


def test_a_model_without_a_tokenizer(tiny, text, tmp_path):
    shutil.copytree(tiny(), tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(DataError, match="holds no tokenizer"):
        one(tmp_path / "bare", text)


def test_progress_goes_up_to_the_end(tiny, text):
    told = []
    one(tiny(), text, seq_len=16, tell=lambda *what: told.append(what))
    assert {stage for stage, _, _ in told} == {"reading model", "scoring model"}
    assert all(done <= total for _, done, total in told)
    assert told[-1] == ("scoring model", 12, 12)


# the model that nobody here made up


def test_lm_small_has_the_loss_that_its_makers_measured(shared):
    model = shared / "models" / "lm-small"
    row = one(model, shared / "data" / "lm" / "heldout.txt", samples=48)
    assert row["tokens"] == 48 * 255
    assert abs(row["loss"] - 3.5234) < 3 * row["loss_error"] < 0.2
    assert row["bytes"] == (model / "model.safetensors").stat().st_size
    assert row["bits_per_weight"] == 16
