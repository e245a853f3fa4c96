"""How numbers are said: each kind by hand."""

import pytest

from secateur import words


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (words.number("bits_per_weight", 3.12484), "3.125"),
        (words.number("bytes", 7_467_996), "7,467,996"),
        (words.number("flops", 0.123456), "0.1235"),
        (words.number("seconds", 0.0123456), "12.35 ms"),
        (words.amount("bits_per_weight", 3.5), "3.500 bits per weight"),
        (words.amount("bytes", 7_566_216), "7.57 MB"),
        (words.amount("flops", 40_812_345), "40.8 MFLOPs"),
        (words.amount("flops", 12), "12 FLOPs"),
        (words.amount("kv", 24_576), "24.6 kB of cache per token"),
        (words.amount("seconds", 0.0123456), "12.3 ms"),
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


def test_budgets_read_as_a_person_writes_them_and_none_like_another():
    some = [
        "7_566_216 bytes",
        "4.25 bits/weight",
        "40_812_345 flops, 272_100 bytes",
        "",
        "7_566_999 bytes",
        "900 bytes",
    ]
    said = words.budgets([*some, *some])
    assert list(said) == some
    assert said["40_812_345 flops, 272_100 bytes"] == "40.8 MFLOPs, 272 kB"
    assert [said[one] for one in some[:2]] == ["7.57 MB (7,566,216 bytes)", "4.25 bits/weight"]
    assert words.budgets(["7_566_216 bytes"]) == {"7_566_216 bytes": "7.57 MB"} and said["900 bytes"] == "900 bytes"


def test_what_is_capped_comes_first_and_of_several_what_computing_takes():
    spent = ("bytes", "flops", "kv", "bits_per_weight")
    assert words.asked_first(spent, {}) == list(spent)
    assert words.asked_first(spent, {"bits_per_weight": 4.0, "flops": 1.0}) == [
        "flops",
        "bits_per_weight",
        "bytes",
        "kv",
    ]
