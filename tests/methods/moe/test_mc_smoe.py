"""M-SMoE by its defining properties: copies merge to themselves, groups add up, silence does not count."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from secateur.methods.moe.mc_smoe import aligned, compressed, counts, distilled, joined, merged, usage

E, C, H = 6, 8, 5


def experts(seed: int = 0, copies: bool = False) -> list[torch.Tensor]:
    """Gate, up [experts, channels, inputs] and down [experts, outputs, channels]; copies are shuffled."""
    draw = torch.Generator().manual_seed(seed)
    gate, up, down = (torch.randn(E, *s, generator=draw) for s in ((C, H), (C, H), (H, C)))
    if copies:
        turns = [torch.arange(C), *(torch.randperm(C, generator=draw) for _ in range(E - 1))]
        gate, up = (torch.stack([w[0][turn] for turn in turns]) for w in (gate, up))
        down = torch.stack([down[0][:, turn] for turn in turns])
    return [gate, up, down]


def answers(gate, up, down, x):
    """What every expert says, [experts, tokens, outputs]."""
    return (functional.silu(x @ gate.mT) * (x @ up.mT)) @ down.mT


def test_by_hand():
    chosen = torch.tensor([[0, 1], [0, 2], [0, 1]])
    assert usage(chosen, 4).tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6, 0])
    # the most used of each stays; one more is the most used of the others
    used = [torch.tensor([0.9, 0.1, 0.0]), torch.tensor([0.4, 0.3, 0.3])]
    assert counts(used, 2) == [1, 1] and counts(used, 3) == [1, 2] and counts(used, 6) == [3, 3]
    logits = torch.tensor([[1.0, 0.0, 2.0, 0.1], [0.0, 1.0, 0.1, 3.0]])
    assert joined(torch.tensor([0.4, 0.3, 0.2, 0.1]), logits, 2).tolist() == [0, 1, 0, 1]
    stack = torch.arange(4.0)[:, None, None]
    assert merged(stack, torch.tensor([0, 1, 0, 1]), torch.tensor([3.0, 1.0, 1.0, 0.0])).flatten().tolist() == [0.5, 1]


@pytest.mark.parametrize("total", range(4, 4 * E + 1, 3))
def test_counts_add_up_also_where_all_are_alike(total):
    found = counts([torch.full((E,), 1 / E)] * 4, total)
    assert sum(found) == total and min(found) >= 1 and max(found) <= E


def test_there_is_no_layer_without_an_expert():
    with pytest.raises(ValueError, match="not between one a layer and all"):
        counts([torch.ones(E)] * 4, 3)


def test_shuffled_copies_of_one_expert_merge_to_it():
    stacks = experts(copies=True)
    side_by_side = aligned(stacks)
    group, used = torch.zeros(E, dtype=torch.long), torch.rand(E, generator=torch.Generator().manual_seed(1))
    for whole, found in zip(stacks, side_by_side, strict=True):
        assert torch.allclose(merged(found, group, used)[0], whole[0], atol=1e-6)
    apart = merged(stacks[0], group, used)[0]  # without laying them side by side they average to something else
    assert not torch.allclose(apart, stacks[0][0], atol=0.1)


def test_a_turned_expert_says_what_it_said():
    stacks, x = experts(), torch.randn(7, H, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(answers(*aligned(stacks), x), answers(*stacks, x), atol=1e-5)


def test_as_many_groups_as_experts_leave_all_as_it_is():
    logits = torch.randn(50, E, generator=torch.Generator().manual_seed(3))
    logits[:, 4] = logits[:, 1]  # also where two are routed alike
    group = joined(torch.arange(float(E)), logits, E)
    assert group.tolist() == list(range(E))
    for stack in experts():
        assert torch.equal(merged(stack, group, torch.rand(E) + 0.1), stack)


def test_who_is_never_chosen_does_not_count_and_a_silent_group_is_a_plain_mean():
    stack, group = experts()[0], torch.tensor([0, 0, 1, 1, 1, 1])
    found = merged(stack, group, torch.tensor([1.0, 0, 0, 0, 0, 0]))
    assert torch.equal(found[0], stack[0]) and torch.allclose(found[1], stack[2:].mean(0))


def test_a_low_rank_and_all_rows_are_the_matrix_and_fewer_are_nearer_than_none():
    draw = torch.Generator().manual_seed(4)
    w, x = torch.randn(20, 12, generator=draw), torch.randn(100, 12, generator=draw)
    a = x.mT @ x / 100

    def error(keep):
        u, v, s = compressed(w, a, rank=4, keep=keep)
        assert u.shape == (20, 4) and int(s.any(1).sum()) == round(20 * keep)
        return float(((u @ v + s - w) @ x.mT).square().sum())

    errors = [error(keep) for keep in (0.0, 0.1, 0.5, 1.0)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-6 * errors[0]
    # the rows that stay are the dearest: any other two would leave more
    _, _, s = compressed(w, a, rank=4, keep=0.1)
    u, v, _ = compressed(w, a, rank=4, keep=0.0)
    cost = ((w - u @ v) @ x.mT).square().sum(1)
    assert set(s.any(1).nonzero().flatten().tolist()) == set(cost.topk(2).indices.tolist())


def test_the_loss_of_recovery_is_the_plain_one_where_it_says_what_the_whole_says():
    draw = torch.Generator().manual_seed(5)
    logits, labels = torch.randn(6, 9, generator=draw), torch.arange(6)
    plain = functional.cross_entropy(logits, labels)
    assert float(distilled(logits, labels, logits)) == pytest.approx(float(plain), rel=1e-5)
    assert float(distilled(logits, labels, logits.flip(0))) > float(plain)
