"""A PNG that a stranger made: checked chunk by chunk, unpacked within its declared size, decoded, and made grey."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clinical_reasoner.serving.upload_errors import TOO_LARGE, WRONG_KIND, UploadError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHOWN_PIXELS = 1024
"""Longest side of a picture that is shown; a larger one is made smaller."""
_MOST_CHUNKS = 10_000
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits of a sample by colour type: grey, RGB, palette, grey with alpha, RGB with alpha."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a pixel, by colour type."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced picture: first column and row, steps between columns and rows (PNG specification 8.2)."""
_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
"""What the pixels need. All else (texts, profiles, dates) may hold anything and is left out unread."""
_PIECE = 64 * 2**10


@dataclass(frozen=True)
class _Header:
    """What IHDR says."""

    width: int
    height: int
    bits: int
    """Of a pixel."""
    interlaced: bool
    has_palette: bool

    @property
    def bytes(self) -> int:
        """Of the unpacked picture: each row of each pass has one byte more, its filter."""
        passes = _ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, across, down in passes:
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                total += rows * ((columns * self.bits + 7) // 8 + 1)
        return total


def grey_png(content: bytes, max_pixels: int, field: str = "slices") -> tuple[bytes, tuple[int, int]]:
    """The picture as a grey PNG of at most SHOWN_PIXELS on a side with nothing beside its pixels; and width and height
    as they were sent.

    Raises UploadError: 415 for what is no PNG, 413 for more than `max_pixels`, 422 for one that is damaged or whose
    pixels are more or fewer than it declares.
    """
    chunks = list(_chunks(content, field))
    header = _header(chunks[0][1], max_pixels, field)
    if header.has_palette and not any(kind == b"PLTE" for kind, _ in chunks):  # Pillow would make one up
        raise UploadError(field, "its PNG has no palette")
    _check_pixels(b"".join(data for kind, data in chunks if kind == b"IDAT"), header, field)
    kept = SIGNATURE + b"".join(_packed(kind, data) for kind, data in chunks if kind in _KEPT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(kept), formats=["PNG"])
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UploadError(field, f"more than {Image.MAX_IMAGE_PIXELS} pixels", TOO_LARGE) from None
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error):
        raise UploadError(field, "its PNG is damaged") from None
    return _encoded(image), (header.width, header.height)


def _encoded(image: Image.Image) -> bytes:
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion cuts off what is above 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    shown = image.convert("L")
    shown.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    shown.info.clear()
    out = io.BytesIO()
    shown.save(out, format="PNG")
    return out.getvalue()


def _chunks(content: bytes, field: str) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk, in order: IHDR first, IEND last and nothing behind it."""
    if content[:8] != SIGNATURE:
        raise UploadError(field, "not a PNG", WRONG_KIND)
    place, kind = 8, b""
    for number in range(_MOST_CHUNKS):
        if len(content) < place + 12:
            raise UploadError(field, "its PNG is cut off")
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            raise UploadError(field, "its PNG is cut off")
        data = content[place + 8 : end - 4]
        is_critical = not kind[0] & 0x20
        if (number == 0) != (kind == b"IHDR") or not kind.isalpha() or (is_critical and kind not in _KEPT):
            raise UploadError(field, "its PNG is damaged")
        if is_critical and struct.pack(">I", zlib.crc32(kind + data)) != content[end - 4 : end]:
            raise UploadError(field, "its PNG is damaged (checksum)")
        yield kind, data
        place = end
        if kind == b"IEND":
            break
    if kind != b"IEND" or place != len(content):
        raise UploadError(field, "its PNG does not end where it should")


def _header(data: bytes, max_pixels: int, field: str) -> _Header:
    if len(data) != 13:
        raise UploadError(field, "its PNG is damaged")
    width, height, depth, colour, packing, filters, interlace = struct.unpack(">IIBBBBB", data)
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise UploadError(field, "its PNG has no pixels")
    if width * height > max_pixels:
        raise UploadError(field, f"more than {max_pixels} pixels", TOO_LARGE)
    if depth not in _DEPTHS.get(colour, ()) or packing != 0 or filters != 0 or interlace > 1:
        raise UploadError(field, "its PNG is of a kind that does not exist")
    return _Header(width, height, depth * _SAMPLES[colour], interlace == 1, colour == 3)


def _check_pixels(packed: bytes, header: _Header, field: str) -> None:
    """Unpacks the pixels piece by piece, keeping none, until they are more than they may be."""
    unpacker = zlib.decompressobj()
    found, full, rest = 0, False, packed
    try:
        while (rest or full) and not unpacker.eof:
            unpacked = len(unpacker.decompress(rest, _PIECE))
            found, full, rest = found + unpacked, unpacked == _PIECE, unpacker.unconsumed_tail
            if found > header.bytes:
                raise UploadError(field, "its PNG holds more pixels than it declares")
    except zlib.error:
        raise UploadError(field, "its PNG is damaged") from None
    if found < header.bytes or not unpacker.eof:
        raise UploadError(field, "its PNG is cut off")


def _packed(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
