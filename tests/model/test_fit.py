"""The training loop: the same as one written out, every plug where it belongs, and a killed run that ends the same."""

import copy
import math
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn import functional

from secateur.model.fit import DivergedError, Moment, Plugs, fit
from secateur.model.goals import Goal, order
from secateur.model.resume import Keep
from secateur.parts.losses import towards
from secateur.types import DataError

GOAL = Goal("example", lambda model, batch: model(batch[0]), lambda batch: batch[1])


def net(seed=0, dropout=0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def batches(n: int):
    draw = torch.Generator().manual_seed(n)
    return torch.randn(6, 4, generator=draw), torch.randint(3, (6,), generator=draw)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_is_the_loop_that_one_would_write():
    ours, theirs = net(), net()
    history = fit(
        ours, batches, GOAL, steps=3, rate=0.01, parts=2, clip=0.5, course=lambda step, steps: 1 - step / steps
    )
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    groups = [{"params": matrices}, {"params": [p for p in theirs.parameters() if p.dim() < 2], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for step in range(3):
        for group in adam.param_groups:
            group["lr"] = 0.01 * (1 - step / 3)
        for part in (0, 1):
            x, y = batches(2 * step + part)
            loss = functional.cross_entropy(theirs(x), y)
            (loss / 2).backward()
            losses.append(float(loss.detach()))
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        adam.step()
        adam.zero_grad()
    assert torch.equal(weights(ours), weights(theirs))
    assert history.losses == pytest.approx([sum(losses[at : at + 2]) / 2 for at in (0, 2, 4)])
    assert (history.steps, history.tokens, history.each) == ([1, 2, 3], [12, 24, 36], "example")


def test_every_plug_is_where_it_belongs():
    seen, worn, model = [], [], net()

    @contextmanager
    def dress(now):
        worn.append(True)
        yield
        worn.pop()

    def select(now, batch):
        seen.append(("select", now.step, now.part, len(worn)))
        return batch[0][:2], batch[1][:2]

    def extra(now, batch, logits):
        seen.append(("extra", len(batch[0]), len(logits), len(worn)))
        return 0.0 * logits.sum()

    plugs = Plugs(select, extra, dress, lambda now: seen.append(("step", now.step, now.part, len(worn))))
    fit(model, batches, GOAL, steps=1, parts=2, plugs=plugs)
    first, second = [("select", 0, part, 0) for part in (0, 1)]
    assert seen == [first, ("extra", 2, 2, 1), second, ("extra", 2, 2, 1), ("step", 0, 0, 0)] and not worn


def test_a_plug_that_adds_nothing_changes_nothing_and_a_teacher_does():
    plain, same, taught = net(), net(), net()
    teacher = net(1).eval()
    fit(plain, batches, GOAL, steps=2)
    fit(same, batches, GOAL, steps=2, plugs=Plugs(extra=towards(teacher, GOAL, 0.0)))
    fit(taught, batches, GOAL, steps=300, rate=0.01, decay=0.0, plugs=Plugs(extra=towards(teacher, GOAL, 50.0)))
    assert torch.equal(weights(plain), weights(same))
    x = batches(999)[0]
    with torch.no_grad():
        p, q, r = (model(x).log_softmax(-1) for model in (teacher, taught, plain))
    assert (p.exp() * (p - q)).sum() < 0.05 * (p.exp() * (p - r)).sum(), "it says nearly what its teacher says"


def test_it_leaves_no_trace_but_the_weights():
    model = net(dropout=0.5).eval()
    before = torch.get_rng_state()
    fit(model, batches, GOAL, steps=2, look=(1, lambda: float(model.training)))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_what_is_held_out_is_measured_on_the_way_in_eval_mode():
    model = net()
    history = fit(model, batches, GOAL, steps=5, look=(2, lambda: 2.0 + model.training + torch.is_grad_enabled()))
    assert history.held_steps == [2, 4, 5] and history.held_losses == [2.0] * 3


class Killed(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize("at", [1, 3])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, at):
    how = {"steps": 5, "rate": 0.02, "parts": 2, "seed": 7}
    straight, broken = net(dropout=0.5), net(dropout=0.5)
    whole = fit(straight, batches, GOAL, **how)

    def kill(stage, done, total):
        if done == at:
            raise Killed

    keep = Keep(tmp_path / "run" / "checkpoint.safetensors", '{"steps": 5}', pause=0.0)
    with pytest.raises(Killed):
        fit(broken, batches, GOAL, keep=keep, tell=kill, **how)
    again = net(3, dropout=0.5)  # other weights: those of the checkpoint must come back
    told = []
    history = fit(again, batches, GOAL, keep=keep, tell=lambda *words: told.append(words), **how)
    assert told == [(f"training from step {at}", done, 5 - at) for done in range(1, 6 - at)]
    assert torch.equal(weights(again), weights(straight)) and history.losses == whole.losses
    with pytest.raises(DataError, match="steps 5 and not 6"):
        fit(net(), batches, GOAL, keep=Keep(keep.file, '{"steps": 6}'), **how)
    keep.clear()
    assert not keep.file.exists()


def test_a_checkpoint_that_is_none_is_said_to_be(tmp_path):
    (tmp_path / "c.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="--fresh"):
        fit(net(), batches, GOAL, steps=1, keep=Keep(tmp_path / "c.safetensors"))


def test_a_loss_that_is_no_number_stops_it():
    model = net()
    poison = lambda n: (batches(n)[0] * (math.inf if n == 2 else 1.0), batches(n)[1])  # noqa: E731
    with pytest.raises(DivergedError, match="at step 3") as caught:
        fit(model, poison, GOAL, steps=5)
    assert "--lr" in caught.value.hint and torch.isfinite(weights(model)).all()


def test_half_computes_in_bfloat16_and_keeps_float32():
    kinds, model = [], net()
    fit(model, batches, GOAL, steps=1, half=True, plugs=Plugs(extra=lambda _, __, out: kinds.append(out.dtype) or 0.0))
    assert kinds == [torch.bfloat16] and weights(model).dtype == torch.float32


def test_chance_hangs_on_seed_step_and_name_alone():
    draws = {
        (seed, step, what): int(torch.randint(1 << 40, (), generator=Moment(step, 9, 3, 4, seed).random(what)))
        for seed in (0, 1)
        for step in (0, 1)
        for what in ("a", "b")
    }
    assert len(set(draws.values())) == 8
    assert draws[0, 1, "a"] == int(torch.randint(1 << 40, (), generator=Moment(1, 5, seed=0).random("a")))


def test_every_example_is_read_once_before_any_comes_again():
    which = order(7, 2, seed=1)
    passes = [which(at).tolist() for at in range(6)]
    for epoch in (passes[:3], passes[3:]):
        assert len({at for one in epoch for at in one}) == 6
    assert passes[:3] != passes[3:]
    assert order(7, 2, seed=1)(4).tolist() == passes[4], "any pass can be asked for"


def test_the_teacher_learns_nothing():
    teacher, model = net(1), copy.deepcopy(net())
    before = weights(teacher).clone()
    fit(model, batches, GOAL, steps=2, plugs=Plugs(extra=towards(teacher, GOAL)))
    assert torch.equal(weights(teacher), before)
