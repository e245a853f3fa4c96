"""Small pictures by hand: a PNG is its pixels, whatever has the shape of a picture is shown, and all stay small."""

import base64
import struct
import zlib

import pytest
import torch

from secateur.parts.thumbs import PICTURED, png, small


def pixels(address: str) -> torch.Tensor:
    """A PNG of ours read back, as [height, width, channels]."""
    file = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert file.startswith(b"\x89PNG\r\n\x1a\n")
    at, pieces = 8, {}
    while at < len(file):
        size, kind = struct.unpack(">I4s", file[at : at + 8])
        body = file[at + 8 : at + 8 + size]
        assert struct.unpack(">I", file[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        pieces[kind] = body
        at += 12 + size
    wide, high, depth, colours = struct.unpack(">IIBB", pieces[b"IHDR"][:10])
    assert depth == 8
    rows = torch.frombuffer(bytearray(zlib.decompress(pieces[b"IDAT"])), dtype=torch.uint8).reshape(high, -1)
    assert rows[:, 0].tolist() == [0] * high, "no filter"
    return rows[:, 1:].reshape(high, wide, {0: 1, 2: 3}[colours])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_its_pixels(channels):
    some = torch.arange(2 * 5 * channels, dtype=torch.uint8).reshape(2, 5, channels)
    assert torch.equal(pixels(png(some)), some)


@pytest.mark.parametrize("shape", [(3, 8, 8, 3), (3, 3, 8, 8), (3, 8, 8), (3, 1, 8, 8), (3, 8, 8, 1), (3, 49, 10)])
def test_whatever_has_the_shape_of_pictures_is_shown(shape):
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = [pixels(one) for one in small(x)]
    assert len(found) == 3 and {one.shape for one in found} == {
        (49, 10, 1) if 49 in shape else (8, 8, 3 if 3 in shape[1:] else 1)
    }
    first = x[0].movedim(0, -1) if shape[1:] == (3, 8, 8) else x[0].reshape(found[0].shape)
    assert torch.equal(found[0], first)


def test_numbers_go_from_black_to_white_and_all_together_staysmall():
    x = torch.linspace(-2, 6, 4).reshape(1, 2, 2)
    assert pixels(small(x)[0]).flatten().tolist() == [0, 85, 170, 255]
    many = torch.randint(0, 256, (600, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = small(many)
    assert len(found) == 600 and sum(map(len, found)) < 1.1 * PICTURED
    assert pixels(found[0]).shape[0] == pixels(found[0]).shape[1] > 16


@pytest.mark.parametrize("shape", [(4, 20), (4, 5, 8, 8), (4, 1, 1, 9)])
def test_what_is_no_picture_is_none(shape):
    assert small(torch.zeros(shape)) == []
