"""Unpacking gzip within limits: bombs, damage, and what hides behind the end."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
import zlib

import pytest

from clinical_reasoner.serving import gunzip as unpacking
from clinical_reasoner.serving.gunzip import gunzip, gunzip_head, is_gzip
from clinical_reasoner.serving.upload_errors import UploadError

NOISE = random.Random(3).randbytes(300_000)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> int:
    """As few bytes as a test can do with."""
    monkeypatch.setattr(unpacking, "FREE_BYTES", 2**20)
    return 2**20


def unpacked(content: bytes, most_bytes: int = 2**22, max_ratio: float = 200) -> bytes:
    return bytes(gunzip(io.BytesIO(content), most_bytes, max_ratio, "scan"))


def refused(content: bytes, most_bytes: int = 2**22, max_ratio: float = 200) -> tuple[int, str]:
    with pytest.raises(UploadError) as raised:
        unpacked(content, most_bytes, max_ratio)
    assert raised.value.field == "scan"
    return raised.value.status, raised.value.message


def with_size(content: bytes, size: int) -> bytes:
    return content[:-4] + size.to_bytes(4, "little")


@pytest.mark.parametrize("plain", [b"", b"x", NOISE, bytes(2**20), NOISE + bytes(2**20)], ids=len)
def test_what_is_within_limits_comes_out_whole(plain: bytes) -> None:
    assert unpacked(gzip.compress(plain)) == plain


def test_exactly_the_limit_is_taken_and_a_byte_more_is_not() -> None:
    packed = gzip.compress(NOISE)
    assert unpacked(packed, len(NOISE)) == NOISE
    assert refused(packed, len(NOISE) - 1) == (413, f"its gzip holds more than {len(NOISE) - 1} bytes")


def test_a_bomb_is_refused_by_what_it_declares_before_anything_is_unpacked() -> None:
    bomb = gzip.compress(bytes(2**27))  # 1000 to 1
    tracemalloc.start()
    try:
        assert refused(bomb) == (413, f"its gzip holds more than {2**22} bytes")
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declared", [0, 5000])
def test_a_bomb_that_lies_about_its_size_is_refused_as_it_unpacks(declared: int, free: int) -> None:
    bomb = with_size(gzip.compress(bytes(2**27)), declared)
    tracemalloc.start()
    try:
        assert refused(bomb, 2**22, max_ratio=2000) == (413, f"its gzip holds more than {2**22} bytes")
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**22
        assert refused(bomb, 2**30, max_ratio=200) == (413, "its gzip holds more than 200 times its own size")
    finally:
        tracemalloc.stop()


def test_a_ratio_is_refused_even_below_the_size_that_is_allowed(free: int) -> None:
    bomb = gzip.compress(bytes(2**24))
    assert refused(bomb, 2**30) == (413, "its gzip holds more than 200 times its own size")
    assert len(unpacked(bomb, 2**30, max_ratio=1100)) == 2**24
    assert len(unpacked(gzip.compress(bytes(free)), 2**30)) == free


@pytest.mark.parametrize("rest", [b"\0", b"garbage", gzip.compress(b"more"), gzip.compress(bytes(2**27))])
def test_nothing_may_follow_the_end(rest: bytes) -> None:
    packed = gzip.compress(NOISE)
    status, message = refused(with_size(packed + rest, 100) if len(rest) > 8 else packed + rest)
    assert (status, message) in (
        (422, "something follows the end of its gzip; send one gzip member"),
        (413, f"its gzip holds more than {2**22} bytes"),  # the last bytes of garbage, read as a size
    )


def test_a_second_member_is_refused_where_the_first_ends_with_a_piece() -> None:
    first = gzip.compress(NOISE)
    rest = gzip.compress(b"x")
    padded = gzip.GzipFile(fileobj=(out := io.BytesIO()), mode="wb", filename="n" * (2**16 - len(first) % 2**16 - 1))
    padded.write(NOISE)
    padded.close()
    assert len(out.getvalue()) % 2**16 == 0
    assert refused(out.getvalue() + rest) == (422, "something follows the end of its gzip; send one gzip member")


@pytest.mark.parametrize("cut", [1, 4, 8, 20, 100_000, 300_000])
def test_a_cut_off_stream_is_refused(cut: int) -> None:
    packed = gzip.compress(NOISE)
    assert refused(with_size(packed[:-cut], 10))[0] == 422


def test_a_wrong_checksum_and_a_wrong_size_are_refused() -> None:
    packed = bytearray(gzip.compress(NOISE))
    packed[-6] ^= 1
    assert refused(bytes(packed)) == (422, "its gzip is damaged")
    assert refused(with_size(gzip.compress(NOISE), 299_999)) == (422, "its gzip is damaged")


def test_what_is_no_gzip_is_refused() -> None:
    assert refused(b"\x1f\x8b") == (422, "its gzip is cut off")
    assert refused(b"\x1f\x8b" + bytes(50)) == (422, "its gzip is damaged")
    assert refused(zlib.compress(b"x" * 50)[:-4] + bytes(4)) == (422, "its gzip is damaged")
    assert is_gzip(gzip.compress(b"")) and not is_gzip(b"\x5c\x01\0\0")


def test_a_head_is_no_longer_than_asked_for() -> None:
    packed = gzip.compress(bytes(2**24))
    assert gunzip_head(packed, 540, "scan") == bytes(540)
    with pytest.raises(UploadError, match="damaged"):
        gunzip_head(b"\x1f\x8b\x09" + bytes(50), 540, "scan")
