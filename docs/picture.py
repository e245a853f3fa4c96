"""Draws docs/picture.svg: a network's matrices cut each at its own height, so that together they fill the budget.

The drawing is a plan in earnest, though of a made-up network: every column gets a number of bits by the same rule as in
`secateur plan`, the most damage avoided per bit first. Run `python docs/picture.py` to draw it again.
"""

from pathlib import Path

BUDGET = 4.25
BITS = (2, 3, 4, 5, 6, 8)
SHADES = ("#95d5b2", "#74c69d", "#52b788", "#40916c", "#2d6a4f", "#235c45")
#: how much each matrix of a block minds being rounded, and how wide it is; blocks at both ends mind more
MATRICES = {"q": (0.5, 2), "k": (1.0, 2), "v": (30, 2), "o": (6, 2), "gate": (0.5, 4), "up": (1.2, 4), "down": (5, 4)}
BLOCKS = (9.0, 0.8, 0.2, 0.5, 3.0)

LEFT, GROUND, HEIGHT, WIDE, GAP = 24, 226, 11.0, 6.0, 12


def plan() -> list[tuple[int, int, int]]:
    """(block, width, bits) of every matrix, the total within the budget."""
    units = [(block, mind * much, width) for block, much in enumerate(BLOCKS) for mind, width in MATRICES.values()]
    total = sum(width for *_, width in units)
    bits = [BITS[0]] * len(units)

    def gain(at: int) -> float:
        _, mind, _ = units[at]
        step = BITS.index(bits[at]) + 1
        if step == len(BITS):
            return 0.0
        return mind * (4.0 ** -bits[at] - 4.0 ** -BITS[step]) / (BITS[step] - bits[at])

    def fits(at: int) -> bool:
        step = BITS.index(bits[at]) + 1
        more = (BITS[step] - bits[at]) * units[at][2] if step < len(BITS) else float("inf")
        return sum(b * unit[2] for b, unit in zip(bits, units, strict=True)) + more <= BUDGET * total

    while better := [at for at in range(len(units)) if fits(at)]:
        best = max(better, key=gain)
        bits[best] = BITS[BITS.index(bits[best]) + 1]
    return [(block, width, b) for (block, _, width), b in zip(units, bits, strict=True)]


def draw() -> str:
    """The picture as SVG. Its colours are read well on white and on black; the background is whatever lies behind."""
    chosen, parts, x = plan(), [], float(LEFT)
    line, last = [], 0
    for block, width, bits in chosen:
        if block != last:  # between two blocks the cut steps in the middle of the gap
            x += GAP
            line[-1] = f"{x - GAP / 2 - 0.75:.1f},{line[-1].split(',')[1]}"
        wide, top = width * WIDE, GROUND - bits * HEIGHT
        full = GROUND - 16 * HEIGHT
        parts.append(
            f'<rect class="off" x="{x:.1f}" y="{full:.1f}" width="{wide - 1.5:.1f}" height="{top - full:.1f}"/>'
        )
        shade = SHADES[BITS.index(bits)]
        parts.append(
            f'<rect fill="{shade}" x="{x:.1f}" y="{top:.1f}" width="{wide - 1.5:.1f}" height="{bits * HEIGHT:.1f}"/>'
        )
        from_x = x - 0.75 - (GAP / 2 if block != last else 0)
        line += [f"{from_x:.1f},{top - 3:.1f}", f"{x + wide - 0.75:.1f},{top - 3:.1f}"]
        x, last = x + wide, block
    parts.append(f'<polyline class="cut" points="{LEFT - 12},{line[0].split(",")[1]} {" ".join(line)}"/>')
    parts.append(f'<text class="shears" x="{LEFT - 20}" y="{float(line[0].split(",")[1]) + 5:.1f}">✂</text>')
    parts.append(
        f'<text x="{LEFT}" y="{GROUND + 20}">every matrix of the network, as tall as the bits of one weight</text>'
    )
    parts.append(f'<text x="{LEFT}" y="{GROUND - 16 * HEIGHT - 8:.0f}">16 bits</text>')
    parts += bar(chosen, x + 44)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x + 200:.0f} {GROUND + 34}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="A network cut to a budget">\n'
        "<style>text{fill:#6e7781}.off{fill:none;stroke:#8b949e;stroke-opacity:.45;stroke-dasharray:2 2}"
        ".cut{fill:none;stroke:#d1495b;stroke-width:2}.shears{font-size:20px;fill:#d1495b}"
        ".cap{stroke:#d1495b;stroke-width:2}.frame{fill:none;stroke:#8b949e}.strong{font-weight:600}"
        "@media (prefers-color-scheme:dark){text{fill:#adbac7}}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def bar(chosen: list[tuple[int, int, int]], x: float) -> list[str]:
    """The budget as a glass: as high as 16 bits for every weight, filled by the plan up to the line."""
    total = sum(width for _, width, _ in chosen)
    spent = sum(width * bits for _, width, bits in chosen) / total
    full = GROUND - 16 * HEIGHT
    parts = [f'<rect class="frame" x="{x:.1f}" y="{full:.1f}" width="44" height="{16 * HEIGHT:.1f}"/>']
    y = float(GROUND)
    for shade, bits in zip(SHADES, BITS, strict=True):
        high = sum(width * b for _, width, b in chosen if b == bits) / total * HEIGHT
        y -= high
        parts.append(f'<rect fill="{shade}" x="{x + 3:.1f}" y="{y:.1f}" width="38" height="{high:.1f}"/>')
    line = GROUND - BUDGET * HEIGHT
    parts.append(f'<line class="cap" x1="{x - 6:.1f}" x2="{x + 50:.1f}" y1="{line:.1f}" y2="{line:.1f}"/>')
    parts.append(f'<text class="strong" x="{x + 56:.1f}" y="{line - 2:.1f}">{BUDGET} bits</text>')
    parts.append(f'<text x="{x + 56:.1f}" y="{line + 14:.1f}">spent {spent:.3f}</text>')
    parts.append(f'<text x="{x:.1f}" y="{GROUND + 20}">the budget</text>')
    return parts


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
