"""How a method is called: one line in a shell, and what follows from it. Every line is one that the command takes."""

import inspect
import shlex

import pytest

import secateur
from secateur import calls, catalogue, cli, recipe

METHODS = catalogue.methods()
PARTS = '''"""Doc."""
LIMIT = int(3)

def shrink(w, by: float = 0.5, *, keep=None):
    """Smaller, in all
    ways.

    More."""

def _private(): ...

class Knob:
    """A knob."""
    size: int
    damp: float = 1.0

knob = Knob(3)
'''


def test_a_line_by_hand():
    use = 'secateur cut MODEL -d a.txt --budget "300 MB" --seq-len 64 --fresh --keep "*.o_proj" -o out'
    options = {"data": "a.txt", "budget": "300 MB", "seq_len": "64", "fresh": "", "keep": "*.o_proj", "out": "out"}
    assert calls.words(use) == ("cut", ["MODEL"], options)
    assert calls.python(use) == "secateur.cut('MODEL', 'a.txt', '300 MB', seq_len=64, keep=('*.o_proj',), out='out')"
    assert calls.recipe(use) == "data: a.txt\nbudget: 300 MB\nseq_len: 64\nkeep:\n- '*.o_proj'\nout: out"
    pinned = 'secateur plan MENU -b "3 bits/weight" --pin "*.v_proj=int(bits=8, group=64)"'
    assert calls.recipe(pinned) == "budget: 3 bits/weight\npin:\n  '*.v_proj': int(bits=8, group=64)"
    assert calls.python(pinned) == (
        "secateur.plan('MENU', ['3 bits/weight'], pin={'*.v_proj': 'int(bits=8, group=64)'})"
    )


def test_what_the_front_door_does_not_know_is_not_made_up():
    assert calls.python("secateur merge A B -o out") == ""
    assert calls.recipe("secateur merge A B -o out") == ""


def test_the_parts_of_a_file(tmp_path):
    file = tmp_path / "method.py"
    file.write_text(PARTS)
    assert list(calls.parts(file)) == [
        ("shrink(w, by=0.5, *, keep=None)", "Smaller, in all ways."),
        ("Knob(size, damp=1.0)", "A knob."),
        ("knob", "Knob(3)"),
    ]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_can_be_called_as_it_says(method, tmp_path):
    command, about, options = calls.words(method.use)
    assert about, "a line says what it is about: MODEL, MENU ..."
    cli.load(command).make_context(command, shlex.split(method.use)[2:])  # parsed by the very command, and not run
    if made := calls.recipe(method.use):
        file = tmp_path / "recipe.yaml"
        file.write_text(made)
        found = recipe.load(file, recipe.KEYS["cut" if command == "plan" else command])
        assert found and set(found) <= set(options)
    if spelled := calls.python(method.use):
        eval(spelled, {"secateur": Door()})


class Door:
    """The front door, where calls only have to fit the signature of their verb."""

    def __getattr__(self, verb: str):
        home = getattr(secateur, verb)
        return inspect.signature(getattr(home, verb) if inspect.ismodule(home) else home).bind
