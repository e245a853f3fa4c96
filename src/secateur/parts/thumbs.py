"""Examples as small pictures that stand in a page: PNG in a `data:` address."""

from __future__ import annotations

import base64
import struct
import zlib

import torch
from torch import Tensor
from torch.nn import functional

#: bytes that all small pictures of a page may take
PICTURED = 2_000_000


def small(x: Tensor) -> list[str]:
    """Each example as a PNG in a `data:` address, no larger than all of them may be; none where they are no pictures.

    Colours are taken as they are; what has no three channels is grey, from the least of all examples to the most.
    """
    grey = x.dim() == 3 or (x.dim() == 4 and 1 in (x.shape[1], x.shape[-1]))
    last, first = x.dim() == 4 and x.shape[-1] == 3, x.dim() == 4 and x.shape[1] == 3
    if not (grey or last or first):
        return []
    planes = x.reshape(len(x), 1, *[n for n in x.shape[1:] if n != 1][-2:]) if grey else x.movedim(-1, 1) if last else x
    if planes.dim() != 4 or min(planes.shape[2:]) < 2:
        return []
    planes = planes.float()
    if x.dtype != torch.uint8:
        low, high = planes.min(), planes.max()
        planes = (planes - low) / (high - low).clamp(min=1e-9) * 255
    # a pixel takes about a byte a channel, and a third more as text
    side = int((PICTURED / (len(x) * 1.3 * planes.shape[1])) ** 0.5)
    shape = [max(1, min(n, round(n * side / max(planes.shape[2:])))) for n in planes.shape[2:]]
    planes = functional.interpolate(planes, size=shape, mode="area").round().clamp(0, 255).byte()
    return [png(one.movedim(0, -1).contiguous()) for one in planes]


def png(pixels: Tensor) -> str:
    """A picture [height, width, 1 or 3] as PNG."""
    high, wide, channels = pixels.shape

    def piece(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.numpy().tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", wide, high, 8, 2 if channels == 3 else 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(rows, 9)) + piece(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()
