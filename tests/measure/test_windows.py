"""Which tokens are scored, after how much context, and how many bytes they spell."""

from __future__ import annotations

import pytest
import torch

from secateur.measure import windows as windows_
from secateur.measure.windows import Encoded, behind, cut, encode, length_for, read_text
from secateur.model.text import load_tokenizer
from secateur.types import DataError


def count(n: int) -> Encoded:
    """Token i is the number i, and begins at character 2i: a text of words of one letter."""
    return Encoded("é " * n, torch.arange(n), 2 * torch.arange(n))


def scored(found) -> list[int]:
    return sorted(found.tokens[:, found.first :].flatten().tolist())


def test_disjoint_windows_score_all_but_the_first_of_each():
    found = cut(count(10), 4)
    assert found.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert scored(found) == [1, 2, 3, 5, 6, 7]
    assert found.each == 3 and found.scored == 6


def test_sliding_windows_score_the_last_of_each():
    found = cut(count(9), 4, stride=2)
    assert found.tokens.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert scored(found) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("stride", range(1, 8))
def test_nothing_is_scored_twice_and_everything_has_its_context(stride):
    found = cut(count(50), 8, stride=stride)
    once = scored(found)
    assert len(set(once)) == len(once) == found.scored
    assert found.first >= 8 - stride
    assert once == list(range(once[0], once[0] + len(once)))  # and none between is left out


def test_a_stride_of_one_window_is_the_default():
    assert torch.equal(cut(count(50), 8, stride=8).tokens, cut(count(50), 8).tokens)
    assert cut(count(50), 8, stride=8).first == cut(count(50), 8).first == 1


def test_behind_a_prompt_its_own_predictions_are_not_scored():
    """Of eight tokens four are the prompt, which predicts the fifth by itself; one at least is left to be scored."""
    assert scored(behind(cut(count(8), 8), 0.5)) == [5, 6, 7]
    assert scored(behind(cut(count(8), 4), 0.99)) == [3, 7]
    with pytest.raises(DataError, match="have nothing behind a prompt"):
        behind(cut(count(8), 2), 0.75)


def test_with_a_first_token_every_token_is_scored():
    found = cut(count(10), 4, prefix=[99])
    assert found.tokens.tolist() == [[99, 0, 1, 2], [99, 3, 4, 5], [99, 6, 7, 8]]
    assert scored(found) == list(range(9))
    assert found.bytes == 9 * 3
    slid = cut(count(10), 5, stride=2, prefix=[99])
    assert slid.tokens[1].tolist() == [99, 2, 3, 4, 5]
    assert scored(slid) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_samples_are_spread_evenly_and_depend_on_the_seed():
    found = cut(count(1000), 10, samples=10)
    firsts = found.tokens[:, 0]
    assert (firsts % 10 == 0).all() and (firsts.diff() == 100).all()
    assert torch.equal(firsts, cut(count(1000), 10, samples=10).tokens[:, 0])
    assert len({int(cut(count(1000), 10, samples=10, seed=seed).tokens[0, 0]) for seed in range(20)}) > 3
    assert len(set(cut(count(1000), 10, samples=77).tokens[:, 0].tolist())) == 77
    assert torch.equal(cut(count(1000), 10, samples=100).tokens, cut(count(1000), 10).tokens)


def test_bytes_are_those_of_the_scored_tokens():
    found = cut(count(10), 4)  # scored: 1 2 3 and 5 6 7, each two bytes and a space
    assert found.bytes == 6 * 3
    assert cut(Encoded("", torch.arange(8), None), 4).bytes is None


def test_the_bytes_of_a_real_tokenizer_are_those_of_the_text(tiny, text):
    encoded = encode(load_tokenizer(tiny()), read_text(text))
    everything = cut(encoded, len(encoded.ids))
    assert everything.bytes == len(text.read_bytes()) - len(text.read_text().split()[0]) - 1


def test_a_long_text_is_tokenized_in_pieces_to_the_same_tokens(tiny, text, monkeypatch):
    tokenizer, read = load_tokenizer(tiny()), read_text(text)
    whole = encode(tokenizer, read)
    monkeypatch.setattr(windows_, "_PIECE", 100)
    pieces = encode(tokenizer, read)
    assert torch.equal(pieces.ids, whole.ids) and torch.equal(pieces.starts, whole.starts)


@pytest.mark.parametrize(
    ("how", "message", "hint"),
    [
        ({"length": 100}, "data gives only 50 tokens, not one window of 100", "--seq-len 50"),
        ({"length": 8, "stride": 9}, "a stride of 9 does not fit windows of 8 tokens", "--stride 1 to 8"),
        ({"length": 8, "stride": 8, "prefix": [0]}, "a stride of 8 does not fit", "--stride 1 to 7"),
        ({"length": 8, "stride": 0}, "a stride of 0", "--stride 1 to 8"),
        ({"length": 8, "samples": 0}, "asked for 0 samples", "at least 1"),
    ],
)
def test_what_does_not_fit(how, message, hint):
    with pytest.raises(DataError) as caught:
        cut(count(50), **how)
    assert message in caught.value.message
    assert hint in caught.value.hint


class _Model:
    def __init__(self, name, context):
        self.name, self.context = name, context


def test_the_shortest_context_is_for_all():
    models = [_Model("a", 2048), _Model("b", 64), _Model("c", None)]
    assert length_for(models, None) == 64
    assert length_for(models[:1], None) == length_for(models[2:], None) == 512
    assert length_for(models, 64) == 64
    with pytest.raises(DataError, match="longer than the context of b, which is 64\nhint: --seq-len 64"):
        length_for(models, 65)
    with pytest.raises(DataError, match="windows of 1 tokens predict nothing"):
        length_for(models, 1)


def test_pictures_are_refused_in_words(tmp_path):
    with pytest.raises(DataError, match="holds arrays, and a language model reads text"):
        read_text(tmp_path / "pictures.npz")
