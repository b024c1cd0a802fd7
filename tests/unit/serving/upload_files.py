"""Scans and pictures, good and crafted, for the tests of uploads."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.serving.upload_errors import UploadError

nib: Any = nibabel  # typed in part
LIMITS = UploadsConfig()
SHAPE = (16, 18, 20)
AFFINE = np.array([[2.0, 0, 0, -16], [0, 2, 0, -18], [0, 0, 2, -20], [0, 0, 0, 1]])


def voxels(dtype: Any = np.int16, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def nifti(array: np.ndarray | None = None, kind: Any = nib.Nifti1Image, **fields: Any) -> bytes:
    """A file of `array` as nibabel writes it, whose header then holds `fields` instead."""
    array = voxels() if array is None else array
    image = kind(array, AFFINE, dtype=array.dtype)
    content = bytearray(image.to_bytes())
    size = image.header.template_dtype.itemsize
    header = kind.header_class(bytes(content[:size]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:size] = header.binaryblock
    return bytes(content)


def kept(folder: Path, content: bytes, name: str = "scan-0") -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, pixels: bytes | None = None, extra: bytes = b"", **header: int) -> bytes:
    """A grey PNG put together by hand; `pixels` are unpacked rows with their filter bytes."""
    fields = {"depth": 8, "colour": 0, "packing": 0, "filters": 0, "interlace": 0, **header}
    rows = bytes(height * (width + 1)) if pixels is None else pixels
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *fields.values()))
    return b"\x89PNG\r\n\x1a\n" + start + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refusal(raised: pytest.ExceptionInfo[UploadError]) -> tuple[int, str]:
    """Status and message; no cause hangs on it that would name the file."""
    error = raised.value
    assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)
    return error.status, error.message
