"""A network that has read the windows: walked or whole, parked or not, its logits are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.measure.models import open_model
from secateur.measure.passes import _walk, _Whole, left_to_right, read
from secateur.measure.rows import pieces
from secateur.measure.speed import Clock, peak_rss
from secateur.measure.windows import Windows
from secateur.model import parked
from secateur.types import ModelError

CPU = torch.device("cpu")


def logits(passed, rows, places):
    with torch.no_grad(), passed.logits() as at:
        return at(rows, places)


@pytest.fixture
def tokens(words):
    return torch.tensor(words[:192]).reshape(12, 16)


def test_walked_is_whole(tiny, tokens, tmp_path):
    model = open_model(str(tiny()))
    walked = read(model, tokens, CPU, tmp_path / "states", lambda *_: None)
    whole = _Whole(model.network(), tokens, Clock(CPU))
    for rows, places in ((slice(0, 12), slice(0, 16)), (slice(3, 5), slice(7, 9)), (slice(3, 5), slice(9, 16))):
        torch.testing.assert_close(logits(walked, rows, places), logits(whole, rows, places))
    assert walked.clock.seconds > 0 and model.notes == []


def test_states_in_a_file_are_states(tiny, tokens, tmp_path, monkeypatch):
    model = open_model(str(tiny()))
    usual = read(model, tokens, CPU, tmp_path / "usual", lambda *_: None)
    monkeypatch.setattr(parked, "IN_MEMORY", 0)
    in_file = read(model, tokens, CPU, tmp_path / "states", lambda *_: None)
    assert (tmp_path / "states").stat().st_size == 12 * 16 * 32 * 4 and not (tmp_path / "usual").exists()
    at = slice(2, 9), slice(3, 11)
    assert torch.equal(logits(in_file, *at), logits(usual, *at))


def test_a_whole_network_computes_each_window_once(tokens):
    calls = []

    class Network(torch.nn.Module):
        def forward(self, tokens, use_cache):
            calls.append(len(tokens))
            return type("Out", (), {"logits": tokens[..., None].float()})()

    with _Whole(Network(), tokens, Clock(CPU)).logits() as at:
        got = [at(slice(0, 4), slice(0, 8)), at(slice(0, 4), slice(8, 16)), at(slice(4, 12), slice(0, 16))]
    assert calls == [4, 8]
    assert torch.equal(torch.cat(got[:2], 1)[..., 0].long(), tokens[:4])


def test_looking_ahead_is_seen():
    def backward(x):
        return x.cumsum(1)

    def both(x):
        return x.flip(1).cumsum(1).flip(1)

    x = torch.randn(1, 6, 3)
    left_to_right("m", backward, x, x.flip(-1))
    with pytest.raises(ModelError, match="m sees the tokens that it is to predict"):
        left_to_right("m", both, x, x.flip(-1))


def test_what_is_wrong_with_a_model_is_said_though_it_is_tried_twice(tiny, tokens, tmp_path):
    model = open_model(str(tiny.save(tmp_path / "model")))
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is truncated"):
        read(model, tokens, CPU, tmp_path / "states", lambda *_: None)


def test_progress_ends_with_the_last_block(tiny, tokens, tmp_path):
    told = []
    _walk(open_model(str(tiny())), tokens, CPU, tmp_path / "states", lambda *at: told.append(at))
    assert told == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("first", [1, 5, 15])
@pytest.mark.parametrize("vocabulary", [7, 1 << 19, 1 << 23, 1 << 25])
def test_pieces_cover_every_scored_place_once_and_fit(first, vocabulary):
    windows = Windows(torch.zeros(11, 16, dtype=torch.long), first, None)
    seen = torch.zeros(11, 16, dtype=torch.int)
    for rows, places in pieces(windows, vocabulary):
        size = (rows.stop - rows.start) * (places.stop - places.start)
        assert size == 1 or size * vocabulary <= 1 << 23
        seen[rows, places] += 1
    wanted = torch.zeros_like(seen)
    wanted[:, first - 1 : 15] = 1
    assert torch.equal(seen, wanted)


def test_a_clock_counts_what_runs_within(monkeypatch):
    times = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock(CPU, 4.0)
    for _ in range(2):
        with clock.running():
            pass
    assert clock.seconds == 6.5


def test_the_peak_is_in_bytes():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("this system does not tell the peak in another way")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert peak_rss() == pytest.approx(1024 * int(line.split()[1]), rel=0.02)
