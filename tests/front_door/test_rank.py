"""Low rank by the front door: caps on bytes and on FLOPs together, and a file that keeps to both."""

from __future__ import annotations

import json

import numpy as np
import pytest

from secateur.cut import cut, plan
from secateur.cut.applying import apply
from secateur.cut.price import needed
from secateur.cut.surveying import survey
from secateur.export import find
from secateur.model.latent import latent_cache, numbers
from secateur.parts.edits.keep import Keep
from secateur.parts.menus import load_menu
from secateur.parts.reading import network
from secateur.types import Budget


def test_a_cap_on_multiplications_is_kept_by_low_ranks(tiny, text, quick, tmp_path):
    budget = "75% flops, 9 bits/weight"
    how, model = {"data": str(text), **quick}, str(tiny("llama"))
    menu = survey(model, format="packed", edits="bits,rank", out=tmp_path / "menu", **how)
    (chosen,) = plan(menu, [budget])
    told = apply(model, chosen, out=tmp_path / "out", menu=tmp_path / "menu", **how)
    assert any(edit.startswith("rank") for edit in told["edits"].values())
    assert told["spent"]["flops"] <= 0.75 * (menu.cost["flops"].max(1).sum() + menu.fixed["flops"])
    assert told["spent"]["bits_per_weight"] <= 9
    assert told["export"]["bytes_on_disk"] == told["spent"]["bytes"]
    assert told["export"]["logit_error"] < 1e-4


@pytest.mark.parametrize("format", ["packed", "safetensors"])
def test_ranks_multiply_less_where_they_are_kept_as_ranks(tiny, text, quick, tmp_path, format):
    menu = survey(str(tiny("llama")), str(text), format=format, out=tmp_path, edits="rank", **quick)
    assert load_menu(tmp_path).edits == menu.edits
    ranks = [at for at, edit in enumerate(menu.edits) if hasattr(edit, "keep")]
    flops = menu.cost["flops"]
    whole = flops[:, next(at for at in range(len(menu.edits)) if at not in ranks)]
    inside = [at for at, unit in enumerate(menu.units) if unit.kind == "linear"]
    for at in ranks:
        share = flops[inside, at] / whole[inside]
        assert (share == 1).all() if format == "safetensors" else (share <= menu.edits[at].keep + 1e-9).all()
        assert (menu.damage[inside, at] > 0).all()


def test_half_the_cache_is_left_when_the_file_is_run(tiny, text, quick, tmp_path):
    import torch

    told = cut(str(tiny("llama")), str(text), "50% kv", out=tmp_path, format="packed", **quick)
    whole = 2 * 2 * 2 * 2 * 16  # bytes, keys and values, blocks, heads of 16 numbers
    assert any("rank" in edit for edit in told["edits"].values())
    assert told["spent"]["kv"] <= whole / 2
    assert told["export"]["cache_bytes_per_token"] == told["spent"]["kv"]
    assert told["export"]["cache_logit_error"] < 1e-5
    made = network(tmp_path, latents=True)
    cache, tokens = latent_cache(made), torch.randint(3, 256, (1, 12))
    with torch.no_grad():
        made(tokens, past_key_values=cache)
        grown = made.generate(
            tokens, past_key_values=latent_cache(made), max_new_tokens=4, do_sample=False, pad_token_id=0
        )
        plain = network(tmp_path).generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert 2 * numbers(cache) == told["spent"]["kv"] and torch.equal(grown, plain)


def test_ranks_are_offered_for_the_cache_where_a_reader_keeps_latents():
    kv = Budget.parse("50% kv")
    assert "rank" in needed(kv, ("bits",), find("packed"))
    assert "rank" not in needed(kv, ("bits",), find("torch-export"))
    assert needed(kv, ("bits", "heads"), find("packed")) == ("bits", "heads")  # somebody has said which


@pytest.mark.parametrize("edits", ["rank", "rank,heads"])
@pytest.mark.parametrize(("name", "format"), [("llama", "packed"), ("llama", "torch-export"), ("gemma", "packed")])
def test_a_rank_saves_cache_where_a_reader_keeps_latents(tiny, text, quick, tmp_path, name, format, edits):
    """Not in torch-export, nor in packed files of a family whose attention is not known to read latents."""
    menu = survey(str(tiny(name)), str(text), format=format, edits=edits, out=tmp_path, **quick)
    kv, keep = menu.cost["kv"], menu.edits.index(Keep())
    ranks = [e for e, edit in enumerate(menu.edits) if "rank" in repr(edit) and "heads" not in repr(edit)]
    saved = np.where(np.isfinite(kv[:, ranks]), kv[:, [keep]] - kv[:, ranks], 0)
    assert (saved >= 0).all() and (saved > 0).any() == (format == "packed" and name == "llama")
    whole = 2 * 2 * 2 * channels(tiny(name))
    assert kv[:, keep].sum() + menu.fixed["kv"] == whole


def channels(folder):
    """KV heads times their width."""
    config = json.loads((folder / "config.json").read_text())
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return config["num_key_value_heads"] * width
