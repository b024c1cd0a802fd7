"""Unpacking gzip that a stranger made: never more than the given number of bytes, and never more than a ratio."""

from __future__ import annotations

import zlib
from io import SEEK_END, SEEK_SET
from typing import BinaryIO

from clinical_reasoner.serving.upload_errors import TOO_LARGE, UploadError

MAGIC = b"\x1f\x8b"
FREE_BYTES = 2**27
"""Unpacked bytes that no ratio is asked of: a label map of 256 x 256 x 256 doubles, most of them 0, packs 300 to 1."""
_GZIP = 31
"""zlib's window size with a gzip header and its checksum."""
_PIECE = 64 * 2**10
_TRAILER = 8
_SIZE_BYTES = 4
"""At the end: the unpacked size, modulo 2**32."""


def is_gzip(head: bytes) -> bool:
    """By content: names lie, and no NIfTI header starts so."""
    return head[:2] == MAGIC


def gunzip_head(head: bytes, most_bytes: int, field: str) -> bytes:
    """The first `most_bytes` of what a gzip file holds, from its beginning. Raises UploadError where it is damaged."""
    try:
        return zlib.decompressobj(_GZIP).decompress(head, most_bytes)
    except zlib.error:
        raise UploadError(field, "its gzip is damaged") from None


def gunzip(stream: BinaryIO, most_bytes: int, max_ratio: float, field: str) -> bytearray:
    """What a gzip file holds, read from the stream's beginning in pieces.

    Takes at most `most_bytes` and a piece of memory. Raises UploadError (413) for more than that and for more than
    `max_ratio` bytes out of one, beyond FREE_BYTES, as declared at the file's end or as they come; and (422) for a file
    that is damaged, cut off, or followed by anything: a second member hides what the first one's size does not tell.
    """
    _check_declared(stream, most_bytes, max_ratio, field)
    stream.seek(0)
    unpacker = zlib.decompressobj(_GZIP)
    content, packed, full = bytearray(), 0, False
    while piece := stream.read(_PIECE):
        packed += len(piece)
        while (piece or full) and not unpacker.eof:
            wanted = min(most_bytes - len(content) + 1, _PIECE)
            try:
                unpacked = unpacker.decompress(piece, wanted)
            except zlib.error:
                raise UploadError(field, "its gzip is damaged") from None
            content += unpacked
            piece, full = unpacker.unconsumed_tail, len(unpacked) == wanted
            _check(len(content), packed - len(piece), most_bytes, max_ratio, field)
        if unpacker.eof:
            rest = unpacker.unused_data or stream.read(1)
            if rest:
                raise UploadError(field, "something follows the end of its gzip; send one gzip member")
            return content
    raise UploadError(field, "its gzip is cut off")


def _check_declared(stream: BinaryIO, most_bytes: int, max_ratio: float, field: str) -> None:
    """The size that the file itself states, before anything is unpacked; zlib compares it with the real one."""
    packed = stream.seek(0, SEEK_END)
    if packed < _TRAILER:
        raise UploadError(field, "its gzip is cut off")
    stream.seek(packed - _SIZE_BYTES, SEEK_SET)
    _check(int.from_bytes(stream.read(_SIZE_BYTES), "little"), packed, most_bytes, max_ratio, field)


def _check(unpacked: int, packed: int, most_bytes: int, max_ratio: float, field: str) -> None:
    if unpacked > most_bytes:
        raise UploadError(field, f"its gzip holds more than {most_bytes} bytes", TOO_LARGE)
    if unpacked > max(FREE_BYTES, max_ratio * packed):
        raise UploadError(field, f"its gzip holds more than {max_ratio:g} times its own size", TOO_LARGE)
