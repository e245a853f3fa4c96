"""What a training tells of itself: counted by hand, kept whole, thinned without bias, refused when it does not fit."""

import pytest

from secateur.model.history import FILE, History
from secateur.types import DataError


def made(losses, tokens=10) -> History:
    history = History()
    for step, loss in enumerate(losses, 1):
        history.took(step, loss, tokens)
    return history


def test_by_hand(tmp_path):
    history = made([4.0, 2.0])
    history.held(2, 2.5)
    assert (history.steps, history.tokens) == ([1, 2], [10, 20])
    history.save(tmp_path)
    assert History.load(tmp_path) == history and History.load(tmp_path / "nowhere") is None


def test_a_running_mean_is_the_plain_mean_while_it_begins_and_forgets_later():
    history = made([8.0] + [1.0] * 199)
    smooth = history.smooth(span=0.05)  # ten steps
    assert smooth[0] == 8.0 and smooth[1] == pytest.approx((0.9 * 8 + 1) / 1.9)
    assert smooth[-1] == pytest.approx(1.0, abs=1e-6) and smooth == sorted(smooth, reverse=True)
    assert made([3.0] * 5).smooth() == [3.0] * 5
    assert made([float("nan"), 2.0]).smooth()[1] == 2.0, "what is no number is left out"


def test_neighbours_become_their_mean():
    steps, losses = made([1.0, 3.0, 5.0, 7.0, 9.0]).thinned(3)
    assert (steps, losses) == ([1.5, 3.5, 5.0], [2.0, 6.0, 9.0])
    assert made([1.0, 3.0]).thinned(10) == ([1.0, 2.0], [1.0, 3.0])


@pytest.mark.parametrize("told", ['{"steps": 4020, "tokens_seen": 16465920}', '{"x": 1}'])
def test_a_file_of_that_name_by_somebody_else_is_none_of_ours(tmp_path, told):
    (tmp_path / FILE).write_text(told)
    assert History.load(tmp_path) is None


@pytest.mark.parametrize("told", ["{", '{"steps": [1]}', '{"steps": ["<b>"], "losses": [1], "tokens": [1]}'])
def test_what_cannot_be_read(tmp_path, told):
    (tmp_path / FILE).write_text(told)
    with pytest.raises(DataError, match="cannot read"):
        History.load(tmp_path)
