"""Draws the six shapes of `concepts/shapes.md`, one file each: `python docs/shapes.py`. Colours do on white and on black."""

from pathlib import Path

HERE = Path(__file__).parent
LEAF, CUT, GREY = "#40916c", "#d1495b", "#8b949e"
STYLE = (
    f"text{{fill:#6e7781;font:13px system-ui,sans-serif}}.b{{fill:{LEAF};fill-opacity:.18;stroke:{LEAF};stroke-width:1.5}}"
    f".g{{fill:none;stroke:{GREY};stroke-width:1.5}}.a{{fill:none;stroke:{GREY};stroke-width:1.5;marker-end:url(#tip)}}"
    f".c{{fill:none;stroke:{CUT};stroke-width:2}}.d{{fill:{CUT}}}.l{{fill:{LEAF}}}.m{{text-anchor:middle}}"
    "@media (prefers-color-scheme:dark){text{fill:#adbac7}}"
)


def box(x: float, y: float, w: float, h: float, text: str = "", dress: str = "b") -> str:
    words = f'<text class="m" x="{x + w / 2}" y="{y + h / 2 + 4.5}">{text}</text>' if text else ""
    return f'<rect class="{dress}" x="{x}" y="{y}" width="{w}" height="{h}" rx="5"/>{words}'


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path class="a" d="M{x} {y}L{to_x} {to_y}"/>'


def note(x: float, y: float, text: str) -> str:
    return f'<text class="m" x="{x}" y="{y}">{text}</text>'


def cut() -> str:
    heights = (70, 40, 55, 30, 62)
    drawn = "".join(
        f'<rect class="g" stroke-dasharray="3 3" x="{20 + 26 * i}" y="20" width="20" height="90"/>' for i in range(5)
    )
    drawn += "".join(box(20 + 26 * i, 110 - h, 20, h) for i, h in enumerate(heights))
    drawn += '<path class="c" d="M14 48H146"/>' + note(80, 132, "units")
    drawn += (
        arrow(156, 70, 192, 70) + box(200, 48, 74, 44, "menu") + arrow(278, 70, 314, 70) + box(322, 48, 74, 44, "plan")
    )
    return (
        drawn
        + arrow(400, 70, 436, 70)
        + box(444, 48, 74, 44, "file")
        + note(359, 32, "budget")
        + arrow(359, 36, 359, 45)
    )


def train() -> str:
    ring = '<path class="a" d="M110 35a52 40 0 1 1 -1 0"/>' + note(110, 80, "step")
    names = ("select", "extra", "dress", "each_step")
    return ring + "".join(
        arrow(250, 32 + 30 * i, 176, 48 + 20 * i) + box(254, 18 + 30 * i, 104, 24, n) for i, n in enumerate(names)
    )


def tune() -> str:
    knobs = "".join(
        f'<circle class="b" cx="{50 + 44 * i}" cy="70" r="15"/><path class="c" d="M{50 + 44 * i} 70l{dx} {dy}"/>'
        for i, (dx, dy) in enumerate(((8, -9), (-11, -4), (3, -12)))
    )
    return (
        knobs
        + note(94, 110, "a few numbers")
        + arrow(170, 70, 220, 70)
        + box(228, 40, 110, 60, "all weights")
        + arrow(342, 70, 392, 70)
        + box(400, 48, 74, 44, "loss")
        + '<path class="a" d="M437 96C437 140 94 150 94 122"/>'
    )


def study() -> str:
    dots = "".join(
        f'<circle class="l" cx="{40 + 33 * i}" cy="{y}" r="4"/>' for i, y in enumerate((96, 60, 84, 44, 66, 38))
    )
    return (
        box(20, 20, 220, 100, "", "g")
        + dots
        + box(330, 48, 110, 44, "evaluate")
        + '<path class="a" d="M246 56C280 40 300 48 324 60"/>'
        + ('<path class="a" d="M324 82C300 100 280 100 246 86"/>')
        + note(286, 36, "ask")
        + note(286, 116, "tell")
    )


def policy() -> str:
    drawn = box(20, 40, 90, 60, "model") + arrow(114, 70, 156, 70)
    for i in range(8):
        gone = i in (2, 3, 5)
        drawn += box(166 + 34 * i, 54, 26, 32, "", "g" if gone else "b")
        drawn += f'<path class="c" d="M{168 + 34 * i} 56l22 28"/>' if gone else ""
    return drawn + note(300, 112, "what it holds while it runs")


def law() -> str:
    curve = '<path class="c" d="M40 30C80 86 150 104 330 112"/>' + '<path class="g" d="M30 20V120H340"/>'
    dots = "".join(
        f'<circle class="l" cx="{x}" cy="{y}" r="4.5"/>' for x, y in ((48, 44), (72, 72), (104, 90), (160, 100))
    )
    return (
        curve
        + dots
        + '<path class="g" stroke-dasharray="3 4" d="M290 120V110"/>'
        + note(290, 98, "?")
        + box(380, 48, 110, 44, "a number")
        + arrow(346, 70, 374, 70)
    )


SHAPES = {"cut": cut, "train": train, "tune": tune, "study": study, "policy": policy, "law": law}


def svg(name: str) -> str:
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
    tip += f'<path fill="{GREY}" d="M0 0L8 4L0 8z"/></marker>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 540 150" role="img" aria-label="the shape called {name}">'
    return f"{head}<style>{STYLE}</style><defs>{tip}</defs>{SHAPES[name]()}</svg>\n"


if __name__ == "__main__":
    (HERE / "concepts" / "shapes").mkdir(exist_ok=True)
    for name in SHAPES:
        (HERE / "concepts" / "shapes" / f"{name}.svg").write_text(svg(name), encoding="utf-8")
