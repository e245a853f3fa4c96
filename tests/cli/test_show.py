"""The tables: every number of the result is in them, and they can be read without colour."""

import io

import pytest
from rich.console import Console

from secateur.cli import show

CUT = {
    "budget": {"asked": "4.25 bits/weight", "bits_per_weight": 4.25},
    "spent": {"bytes": 7467996, "bits_per_weight": 4.2487},
    "loss_before": 3.52345,
    "loss_after": 3.52712,
    "damage_predicted": 0.0031,
    "damage_error": 0.0004,
    "damage_measured": 0.00367,
    "damage_measured_error": 0.0002,
    "kl": 0.0041,
    "kl_error": 0.0001,
    "agreement": 0.963,
    "bad_rows": [{"unit": "x", "rows": [1]}],
    "seconds": 61.2,
    "peak_rss_bytes": 512_000_000,
    "resumed": True,
    "coverage": 0.997,
    "skipped": [{"unit": f"norm.{at}", "reason": "a vector"} for at in range(8)] + [{"unit": "x", "reason": "[odd]"}],
    "export": {
        "format": "compressed-tensors",
        "files": ["model.safetensors"],
        "bytes_on_disk": 7467996,
        "verified_in": "transformers 5.23.0",
        "logit_error": 1.2e-6,
    },
}


def drawn(what) -> str:
    """As a pipe sees it, spaces folded."""
    console = Console(file=io.StringIO(), width=120, highlight=False)
    console.print(what)
    return " ".join(console.file.getvalue().split())


def test_a_cut_shows_every_number():
    text = drawn(show.cut(CUT))
    for word in (
        "4.250",
        "4.249",
        "7,467,996",
        "100.0%",
        "3.5234",
        "3.5271",
        "0.00310 ± 0.00040",
        "0.00367 ± 0.00020",
        "1.18",
    ):
        assert word in text, word
    assert "compressed-tensors, 7.47 MB on disk, seen to load in transformers 5.23.0, logits within 1.2e-06" in text
    assert "KL 0.00410 ± 0.00010 nats per token; the first choice is the same 96.3% of the time" in text
    assert "bad rows 1 hold NaN" in text
    assert "99.7% of the parameter bytes" in text
    assert "1 min 1 s, 512 MB of memory at most, earlier work was taken up" in text
    assert "norm.5 and 2 more: a vector" in text
    assert "x: [odd]" in text


def test_a_cut_without_export_or_prediction_can_be_drawn():
    bare = CUT | {"export": {}, "damage_predicted": 0.0, "damage_error": None, "skipped": [], "resumed": False}
    text = drawn(show.cut(bare))
    assert "left as it was" not in text
    assert "earlier work" not in text


def test_the_caps_are_read_from_the_words_where_nobody_gives_them_as_numbers():
    spent = {"bytes": 150e6, "bits_per_weight": 3.0}
    text = drawn(show.cut(CUT | {"budget": {"asked": "300 MB, 50% flops"}, "spent": spent}))
    assert "bytes 300,000,000 150,000,000 50.0% bits per weight 3.000" in text
    assert "bits per weight 3.000" in drawn(show.cut(CUT | {"budget": {"asked": "by hand"}, "spent": spent}))


def test_equal_logits_are_called_equal():
    exact = CUT | {"export": CUT["export"] | {"logit_error": 0.0}}
    assert "transformers 5.23.0, logits equal" in drawn(show.cut(exact))


def test_inspect_groups_the_blocks():
    units = [
        {"unit": f"model.layers.{at}.mlp.down_proj", "kind": "linear", "bytes": 600, "shape": [2, 3]} for at in range(3)
    ]
    found = {"model": "tiny", "weights": 1000, "bytes": 2000, "units": units, "skipped": []}
    text = drawn(show.inspect(found))
    assert "model.layers.*.mlp.down_proj linear 3 1,800 90.0%" in text
    assert "1,000 parameters in 2 kB" in text


def test_measure_sets_models_side_by_side_and_leaves_out_what_nobody_has():
    rows = [
        {"model": "a", "loss": 3.5, "perplexity": 33.1, "bytes": 1234, "seconds": 2.0},
        {"model": "b[x]", "loss": 3.6, "kl": 0.0123, "agreement": 0.91, "bytes": 1000, "seconds": 1.0},
        {"model": "c", "loss": 3.7, "loss_error": 0.02, "note": "other tokens", "tasks": {"piqa": {"acc": 0.5}}},
    ]
    text = drawn(show.measure({"rows": rows}))
    assert "accuracy" not in text
    for line in (
        "a b[x] c",
        "loss 3.5000 3.6000 3.7000 ± 0.0200",
        "KL 0.0123",
        "agreement 91.00%",
        "bytes 1,234 1,000",
    ):
        assert line in text, line
    assert "c: other tokens" in text
    assert "c piqa acc 0.5000" in text


def test_the_frontier_names_the_floor_and_the_mixture():
    edits = {"a": "int(bits=4, group=64)", "b": "int(bits=4, group=64)", "c": "keep()"}
    plan = {"budget": "4 bits/weight", "spent": {"bytes": 99, "bits_per_weight": 3.999}, "edits": edits}
    plan |= {"damage": 0.02, "error": 0.001, "bound": 0.0199, "file": "plan.yaml"}
    text = drawn(show.frontier({"plans": [plan]}))
    assert "0.0200 ± 0.00100" in text
    assert "0.0199" in text
    assert "1 keep, 2 int4 plan.yaml" in text
    assert "file" not in drawn(show.frontier({"plans": [plan | {"file": None}]}))


def test_a_mixture_counts_kinds_and_bits():
    edits = ["int(bits=3, group=64)", "keep()", "int(bits=2)", "nvfp4()", "int(bits=3, symmetric=False)"]
    edits += ["ggml('q4_k')", "ggml('mxfp4')"]
    assert show.mixture(edits) == "1 keep, 1 mxfp4, 1 nvfp4, 1 q4_k, 1 int2, 2 int3"


@pytest.mark.parametrize(
    ("value", "text"), [(999, "999 bytes"), (7_468_000, "7.47 MB"), (16e9, "16 GB"), (1500, "1.5 kB")]
)
def test_sizes(value, text):
    assert show.size(value) == text
