"""Give every capability and every style its share of the budget, and the best rated of each first.

Paper: Lyu et al.: Cream of the Crop: Harvesting Rich, Scalable and Transferable Multi-Modal Data for Instruction
    Fine-Tuning (arXiv 2503.13383, 2025)
Wing: data
Shape: law
Applies to: texts and pictures, rated by the network or in columns of their own
Use: secateur select MODEL --data text.txt --keep 10% --method mmssr -o out

Every example has a rating for each of several capabilities, and one or more styles. The budget is divided among the
capabilities; each walks through the styles of its candidates, from the rarest to the commonest, and takes the best
rated of every style up to an even quota. What a rare style cannot fill is owed to the next. Until the budget is filled
or nobody is left with a rating above the threshold. No distances are computed, so it costs no more than sorting.

Where we differ: in the paper a large model rates 14 capabilities and tells nine styles. Where a table has such columns,
`ratings` and `styles` name them (several with commas; styles of one example too). Where nobody has rated, the network
at hand stands in: how typical an example is of its cluster and how unsure the network is of it, in fifths from 1 to 5,
and clusters of its vectors for styles: `groups` of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from secateur.maths.clustering import kmeans, scaled
from secateur.parts.eyes import Eye
from secateur.parts.select import Chooser, Chosen, Room
from secateur.types import DataError


@dataclass(frozen=True)
class MmSSR:
    """Ratings and styles, and an even share for each."""

    ratings: str = ""
    styles: str = ""
    groups: int = 9
    threshold: float = 0.0

    def __call__(self, eye: Eye, room: Room, random: torch.Generator) -> Chosen:
        rated = torch.stack([_numbers(eye, name) for name in _words(self.ratings)], 1) if self.ratings else None
        styled = _styles(eye, self.styles) if self.styles else None
        if rated is None or styled is None:
            seen = eye.see()
            even = scaled(seen.vectors)
            centres, group = kmeans(even, self.groups, random)
            styled = one_hot(group).bool() if styled is None else styled
            near = -(even - centres[group]).norm(dim=1)
            rated = torch.stack([fifths(seen.known["entropy"]), fifths(near)], 1) if rated is None else rated
        found = sample(rated, styled, room, self.threshold)
        about = {"capabilities": rated.shape[1], "styles": styled.shape[1]}
        about |= {"kept_of_each_style": styled[found].sum(0).tolist()}
        return Chosen(found, rated.double().mean(1), "mean rating", about)


def fifths(x: Tensor) -> Tensor:
    """Ratings from 1, for the lowest fifth, to 5; equal numbers stand in the order of the pool.

    >>> fifths(torch.tensor([0.3, 0.1, 0.2, 0.5, 0.4])).tolist()
    [3.0, 1.0, 2.0, 5.0, 4.0]
    """
    place = torch.empty(len(x), dtype=torch.long)
    place[x.argsort(stable=True)] = torch.arange(len(x))
    return (1 + 5 * place // max(len(x), 1)).float()


def sample(ratings: Tensor, styles: Tensor, room: Room, threshold: float = 0.0) -> Tensor:
    """Places of what is kept, in the order in which it is taken.

    `ratings` are [examples, capabilities], `styles` [examples, styles] of true and false; who has no style shares one
    with others that have none.
    """
    alone = ~styles.any(1, keepdim=True)
    styles = torch.cat([styles, alone], 1) if bool(alone.any()) else styles
    free, left, taken = torch.ones(len(ratings), dtype=torch.bool), room.most, []
    orders = [ratings[:, c].argsort(descending=True, stable=True) for c in range(ratings.shape[1])]
    alive = list(range(len(orders)))
    while left > 0 and alive:
        share, before = max(1, left // len(alive)), len(taken)
        for c in list(alive):
            order = orders[c][free[orders[c]] & (ratings[orders[c], c] > threshold)]
            if not len(order):
                alive.remove(c)
                continue
            for some in _by_style(order, styles, room, min(share, left)):
                taken.append(some)
                free[some] = False
                left -= room.used(some)
        if len(taken) == before:  # of the tokens that are left no share is as long as an example
            rest = torch.cat([order[free[order]] for order in orders]) if alive else torch.tensor([], dtype=torch.long)
            rest = torch.tensor(list(dict.fromkeys(i for i in rest.tolist() if bool((ratings[i] > threshold).any()))))
            taken.append(Room(room.cost, left, room.unit, room.asked).first(rest.long()))
            break
    return torch.cat(taken) if taken else torch.tensor([], dtype=torch.long)


def _by_style(order: Tensor, styles: Tensor, room: Room, budget: int) -> list[Tensor]:
    """Of candidates in the order of their rating an even quota of every style, the rarest first."""
    mine = styles[order]
    sizes = mine.sum(0)
    there = [s for s in sizes.argsort(stable=True).tolist() if int(sizes[s])]
    quota, owed, left = max(1, budget // len(there)), 0, budget
    gone, out = torch.zeros(len(styles), dtype=torch.bool), []
    for style in there:
        group = order[mine[:, style] & ~gone[order]]
        most = min(quota + owed, left)
        some = Room(room.cost, most, room.unit, room.asked).first(group) if most > 0 else group[:0]
        used = room.used(some)
        owed, left = quota + owed - used, left - used
        gone[some] = True
        if len(some):
            out.append(some)
    return out


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(eye: Eye, name: str) -> Tensor:
    told = eye.beside(name)
    try:
        found = torch.tensor([float(value) for value in told])
    except (TypeError, ValueError):
        raise DataError(
            f"the column `{name}` holds more than numbers", "a rating is a number, say from 0 to 5"
        ) from None
    if not bool(torch.isfinite(found).all()):
        raise DataError(f"the column `{name}` holds NaN or infinity", "a rating is a number, say from 0 to 5")
    return found


def _styles(eye: Eye, name: str) -> Tensor:
    """Of every example which styles it has: lists, or words with commas."""
    told = [value if isinstance(value, list | tuple) else _words(str(value or "")) for value in eye.beside(name)]
    known = {style: at for at, style in enumerate(sorted({str(one) for some in told for one in some}))}
    if not known:
        raise DataError(f"the column `{name}` holds no styles", "a style is a word, several with commas or in a list")
    out = torch.zeros(len(told), len(known), dtype=torch.bool)
    for row, some in enumerate(told):
        out[row, [known[str(one)] for one in some]] = True
    return out


mmssr: Chooser = MmSSR()
