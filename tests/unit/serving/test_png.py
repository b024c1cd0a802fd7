"""Pictures as Pillow writes them, and pictures that someone crafted."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clinical_reasoner.serving.png import SHOWN_PIXELS, grey_png
from clinical_reasoner.serving.upload_errors import UploadError
from tests.unit.serving.upload_files import chunk, png, refusal

MOST = 10_000
CANARY = b"Zebulon the beekeeper"


def written(mode: str, size: tuple[int, int] = (9, 7), **options: Any) -> bytes:
    pixels = np.random.default_rng(2).integers(0, 255, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def decoded(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    assert image.mode == "L" and not image.info
    return np.asarray(image)


def refused(content: bytes, most: int = MOST) -> tuple[int, str]:
    tracemalloc.start()
    try:
        with pytest.raises(UploadError) as raised:
            grey_png(content, most)
        assert tracemalloc.get_traced_memory()[1] < 6 * len(content) + 2**20
    finally:
        tracemalloc.stop()
    return refusal(raised)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_picture_becomes_grey(mode: str) -> None:
    content, size = grey_png(written(mode), MOST)
    assert size == (9, 7)
    seen = Image.open(io.BytesIO(written(mode))).convert("RGBA").convert("RGB").convert("L")
    assert np.abs(decoded(content).astype(int) - np.asarray(seen)).max() <= 1


def test_sixteen_bits_keep_their_range() -> None:
    pixels = np.linspace(0, 65535, 63).astype(np.uint16).reshape(7, 9)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    assert np.array_equal(decoded(grey_png(out.getvalue(), MOST)[0]), pixels >> 8)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (4, 9), (17, 13)])
def test_an_interlaced_picture_has_as_many_bytes_as_its_passes(size: tuple[int, int]) -> None:
    width, height = size
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(
        (b"\0" + bytes([200]) * len(range(left, width, across))) * len(range(top, height, down))
        for left, top, across, down in passes
        if range(left, width, across)
    )
    content = png(width, height, pixels=rows, interlace=1)
    assert np.array_equal(decoded(grey_png(content, MOST)[0]), np.full((height, width), 200))
    assert refused(png(width, height, pixels=rows + b"\0", interlace=1))[0] == 422


def test_a_large_picture_is_shown_smaller() -> None:
    content, size = grey_png(png(3000, 1500), 5_000_000)
    assert size == (3000, 1500) and decoded(content).shape == (SHOWN_PIXELS // 2, SHOWN_PIXELS)


def test_texts_and_profiles_are_left_out_unread() -> None:
    bomb = zlib.compress(bytes(2**26))
    extra = chunk(b"zTXt", b"Comment\0\0" + bomb) + chunk(b"iCCP", b"p\0\0" + bomb) + chunk(b"tEXt", b"who\0" + CANARY)
    tracemalloc.start()
    try:
        content, _ = grey_png(png(9, 7, extra=extra), MOST)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert CANARY not in content and len(content) < 200


CRAFTED = {
    "pixels bomb": (png(9, 7, pixels=bytes(2**26)), 422, "its PNG holds more pixels than it declares"),
    "too few": (png(9, 7, pixels=bytes(69)), 422, "its PNG is cut off"),
    "declared": (png(30_000, 30_000, pixels=b""), 413, "more than 10000 pixels"),
    "most": (png(2**31 - 1, 2**31 - 1, pixels=b""), 413, "more than 10000 pixels"),
    "beyond": (png(2**32 - 1, 1, pixels=b""), 422, "its PNG has no pixels"),
    "empty": (png(0, 7, pixels=b""), 422, "its PNG has no pixels"),
    "depth": (png(9, 7, depth=3), 422, "its PNG is of a kind that does not exist"),
    "colour": (png(9, 7, colour=5), 422, "its PNG is of a kind that does not exist"),
    "packing": (png(9, 7, packing=1), 422, "its PNG is of a kind that does not exist"),
    "interlace": (png(9, 7, interlace=2), 422, "its PNG is of a kind that does not exist"),
    "no palette": (png(9, 7, colour=3), 422, "its PNG has no palette"),
    "filter": (png(9, 7, pixels=bytes([9] * 70)), 422, "its PNG is damaged"),
    "two headers": (png(9, 7, extra=png(9, 7)[8:33]), 422, "its PNG is damaged"),
    "unknown critical": (png(9, 7, extra=chunk(b"ABCD", b"")), 422, "its PNG is damaged"),
    "odd name": (png(9, 7, extra=chunk(b"a\0\n\xff", b"")), 422, "its PNG is damaged"),
    "length": (png(9, 7)[:33] + struct.pack(">I", 2**32 - 1) + b"tEXt", 422, "its PNG is cut off"),
    "cut": (png(9, 7)[:-12], 422, "its PNG is cut off"),
    "signature": (png(9, 7)[:8], 422, "its PNG is cut off"),
    "trailing": (png(9, 7) + b"PK\3\4", 422, "its PNG does not end where it should"),
    "many chunks": (png(9, 7, extra=chunk(b"tEXt", b"") * 20_000), 422, "its PNG does not end where it should"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(100), 415, "not a PNG"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a PNG"),
    "nothing": (b"", 415, "not a PNG"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_picture_is_refused_with_a_reason(name: str) -> None:
    content, status, message = CRAFTED[name]
    assert refused(content) == (status, message)


def test_a_wrong_checksum_is_refused() -> None:
    content = bytearray(png(9, 7))
    content[20] ^= 1  # in the width
    assert refused(bytes(content)) == (422, "its PNG is damaged (checksum)")


def test_what_pillow_holds_for_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert refused(png(9, 7)) == (413, "more than 50 pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert refused(png(9, 7)) == (413, "more than 10 pixels")
