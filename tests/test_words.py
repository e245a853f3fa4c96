"""How numbers are said: each kind by hand."""

import pytest

from secateur import words


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (words.number("bits_per_weight", 3.12484), "3.125"),
        (words.number("bytes", 7_467_996), "7,467,996"),
        (words.number("flops", 0.123456), "0.1235"),
        (words.size(999), "999 bytes"),
        (words.size(16e9), "16 GB"),
        (words.nats(None), ""),
        (words.nats(0.012345), "0.0123"),
        (words.nats(-0.0012345), "-0.00123"),
        (words.give_or_take(0.0123, 0.001), "0.0123 ± 0.00100"),
        (words.give_or_take(0.0123, None), "0.0123"),
        (words.seconds(0.44), "0.4 s"),
        (words.seconds(4210), "1 h 10 min"),
        (words.called("bits_per_weight"), "bits per weight"),
        (words.called("flops"), "flops"),
        (words.loaded({}), "not checked in a runtime"),
        (words.loaded({"verified_in": "x 1.0", "logit_error": 0.0}), "seen to load in x 1.0, logits equal"),
        (words.loaded({"verified_in": "x 1.0", "logit_error": 2e-6}), "seen to load in x 1.0, logits within 2.0e-06"),
        (words.loaded({"verified_in": "x 1.0"}), "seen to load in x 1.0"),
    ],
)
def test_said(said, text):
    assert said == text


def test_caps_as_the_plan_worked_them_out_or_as_the_words_name_them():
    assert words.caps({"asked": "50% bytes", "bytes": 1000.0}) == {"bytes": 1000.0}
    assert words.caps({"asked": "3 bits/weight, 2 MB"}) == {"bits_per_weight": 3.0, "bytes": 2e6}
    assert words.caps({"asked": "by hand"}) == {}


def test_reasons_gather_what_they_explain():
    entries = [{"unit": "a", "reason": "x"}, {"unit": "b", "reason": "y"}, {"unit": "c", "reason": "x"}]
    assert words.by_reason(entries) == {"x": ["a", "c"], "y": ["b"]}
