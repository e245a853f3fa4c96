"""What slices lose, drawn: whose line goes where, and a folder that holds something else."""

import json
from xml.etree import ElementTree

from secateur.report.slices import best, curve, of_folder, section


def row(size, loss, width="1 of 4"):
    counts = {"width": width, "depth": "2 of 2"}
    return {"slice": {"width": 1}, "counts": counts, "bytes": size, "flops": 2 * size, "loss": loss, "loss_error": 0.1}


ROWS = [row(4000, 1.0), row(1000, 3.0), row(3000, 3.5), row(2000, 2.0)]


def test_the_line_goes_through_those_that_no_smaller_one_beats():
    assert [one["bytes"] for one in best(ROWS, "bytes")] == [1000, 2000, 4000]
    drawn = ElementTree.fromstring(curve({"sorted": ROWS, "cut <off>": ROWS[:2]}, by="flops"))
    lines = [line.get("points").split() for line in drawn.iter("polyline")]
    assert [len(line) for line in lines] == [3, 2]
    xs = [float(point.partition(",")[0]) for point in lines[0]]
    assert xs == sorted(xs) and len(list(drawn.iter("circle"))) == len(ROWS) + 2 + 2
    assert curve({}) == "" and "cut &lt;off&gt;" in curve({"cut <off>": ROWS, "b": ROWS})


def test_a_section_names_every_slice_and_what_is_not_there_is_left_out(tmp_path):
    assert of_folder(tmp_path) == {} and section({}) == ""
    for told in (
        "{",
        "[]",
        '{"slices": [], "each": "token"}',
        '{"slices": [{"slice": {}, "loss": 1.0}], "each": "token"}',
    ):
        (tmp_path / "trained.json").write_text(told)
        assert of_folder(tmp_path) == {}
    (tmp_path / "trained.json").write_text(json.dumps({"each": "token", "slices": ROWS}))
    drawn = section(of_folder(tmp_path))
    assert drawn.count("<tr>") == 5 and "width 1 of 4, depth 2 of 2" in drawn and "2.0000 ± 0.1000" in drawn
