"""The picture of the guide on choosing data: a pool of three kinds of text, of which one is wanted.

    PYTHONPATH=src python -m benchmarks.choosing            # writes docs/guides/select.svg, and says what was kept

The pool is that of the claims (`kinds.py`): a thousand windows of Python's library, a tenth of them prose, and a small
network that was trained on code alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from benchmarks.harness import ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks import kinds
from secateur.parts.eyes.opening import open_eye
from secateur.parts.select import Keep, find
from secateur.report.chosen import mapped
from secateur.report.examples import picture
from secateur.report.pictures import alone

NAMES = ("code", "tables", "prose")


def main() -> None:
    pool = kinds.pool(0)
    with TemporaryDirectory() as place:
        folder = Path(place)
        pool.model.save_pretrained(folder / "model")
        by_bytes().save_pretrained(folder / "model")
        for name, windows in (("pool", pool.windows), ("mine", pool.target)):
            rows = (json.dumps({"text": bytes(one.tolist()).decode("latin-1")}) for one in windows)
            (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        device = torch.device("cpu")
        files = str(folder / "model"), folder / "pool.jsonl", folder / "mine.jsonl"
        eye = open_eye(*files, None, None, None, device, lambda *_: None)
        room = Keep.parse("10%").room(len(eye), None)
        chosen = find("simcore")(eye, room, torch.Generator().manual_seed(0))
        kept = torch.zeros(len(eye), dtype=torch.bool)
        kept[chosen.at] = True
        drawn = picture(mapped(eye, eye.see(), chosen, kept, "row").examples, "")
    # what lies in the midst of a cluster is a page's to tell, not a picture's
    drawn = re.sub(r"<title>(.*?)\. .*?</title>", r"<title>\1</title>", drawn, flags=re.DOTALL)
    style = (ROOT / "src/secateur/report/page.css").read_text(encoding="utf-8")
    (ROOT / "docs/guides/select.svg").write_text(alone(drawn, style), encoding="utf-8")
    for kind, name in enumerate(NAMES):
        mine = pool.kinds[eye.numbers] == kind
        print(f"{name}: {int(kept[mine].sum())} of {int(mine.sum())} kept")


def by_bytes() -> PreTrainedTokenizerFast:
    """A tokenizer of 256 words, of which each byte of these texts is its own."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    place = {character: at for at, character in enumerate(_in_order(alphabet))}
    words = Tokenizer(models.BPE(place, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=words)


def _in_order(alphabet: list[str]) -> list[str]:
    """The characters that stand for the bytes 0 to 255: printable ones for themselves, others from 256 on."""
    seen = [byte for byte in range(256) if chr(byte) in alphabet and chr(byte).isprintable() and byte not in (32, 173)]
    rest = iter(sorted(set(alphabet) - {chr(byte) for byte in seen}))
    return [chr(byte) if byte in seen else next(rest) for byte in range(256)]


if __name__ == "__main__":
    main()
