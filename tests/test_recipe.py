"""Recipes: what they may hold, and what is said of what they may not."""

import pytest

from secateur import recipe
from secateur.types import SecateurError


def written(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_recipe_by_hand(tmp_path):
    text = 'budget: 300 MB\nseq-len: 256\nkeep: "*.norm"\npin: {"*.down_proj": "int(bits=4, group=64)"}\n'
    assert recipe.load(written(tmp_path, text)) == {
        "budget": "300 MB",
        "seq_len": 256,
        "keep": ["*.norm"],
        "pin": {"*.down_proj": "int(bits=4, group=64)"},
    }


def test_a_number_may_stand_for_text(tmp_path):
    assert recipe.load(written(tmp_path, "budget: 7468000")) == {"budget": "7468000"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("samples: 1.5", "a whole number"),
        ("samples: true", "a whole number"),
        ("budget: true", "one word or number"),
        ("budget: [4]", "one word or number"),
        ("keep: [1, 2]", "a list of patterns"),
        ("pin: text", "pattern: edit"),
        ("pin: {a: 4}", "pattern: edit"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(tmp_path, line, wanted):
    with pytest.raises(SecateurError, match=wanted) as caught:
        recipe.load(written(tmp_path, line))
    assert line.partition(":")[0] in caught.value.message


def test_an_unknown_key_gets_the_nearest_or_all(tmp_path):
    with pytest.raises(SecateurError, match=r"did you mean `seq_len`\?"):
        recipe.load(written(tmp_path, "seq-lne: 4"))
    with pytest.raises(SecateurError, match="the keys are data, budget"):
        recipe.load(written(tmp_path, "xyzzy: 4"))


def test_no_code_is_run(tmp_path):
    flag = tmp_path / "was-run"
    with pytest.raises(SecateurError, match="cannot read"):
        recipe.load(written(tmp_path, f"budget: !!python/object/apply:pathlib.Path.touch [{flag}]"))
    assert not flag.exists()


def test_what_is_not_text_is_said_to_be_none(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SecateurError, match="cannot read the recipe"):
        recipe.load(file)
