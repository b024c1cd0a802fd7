"""Hostile files: NIfTI that is cut off, of other dimensions, or a bomb; PNG of the same kinds; forms that are none."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import nibabel
import numpy as np

from tests.integration.hostile_case import Hostile

nib: Any = nibabel  # typed in part
SHAPE = (16, 18, 20)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
REQUEST = json.dumps({"patient": {"mmse": 22}, "model": "student"}).encode()
BOUNDARY = "frontier"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PATH_TRICKS = (
    "../../../../etc/passwd",
    "/etc/cron.d/evil",
    "..\\..\\windows\\system32\\evil.dll",
    "scan.nii.gz\x00.png",
    "a" * 4000,
    "\u202egz.iin.nacs",
    "|id",
    "con.nii",
)
"""Names of files; no name is ever used, so that the content decides."""


def nifti(array: np.ndarray | None = None, **fields: Any) -> bytes:
    """A file as nibabel writes it, whose header then holds `fields` instead."""
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16) if array is None else array
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units("mm")
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    return bytes(content)


def zeros_gz(mib: int, head: bytes = b"") -> bytes:
    """Zeros behind a head, packed: one block of a MiB, written again and again, so that gigabytes are made at once. The
    checksum at its end is wrong, which shows only to who unpacks it all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    size = (len(head) + mib * 2**20) % 2**32
    return start + block * mib + b"\x03\x00" + struct.pack("<II", 0, size)


@cache
def scans() -> dict[str, bytes]:
    whole = nifti()
    packed = gzip.compress(whole)
    four, colour = np.zeros((*SHAPE, 3), np.int16), np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    sides = (3, 1000, 1000, 1000, 1, 1, 1, 1)
    return {
        "empty": b"",
        "ten bytes": whole[:10],
        "half a header": whole[:174],
        "header alone": whole[:352],
        "half": whole[: len(whole) // 2],
        "one byte less": whole[:-1],
        "one byte more": whole + b"\0",
        "4-D": nifti(four),
        "5-D": nifti(np.zeros((*SHAPE, 2, 2), np.int16)),
        "2-D": nifti(np.zeros(SHAPE[:2], np.int16)),
        "complex64": nifti(np.zeros(SHAPE, np.complex64)),
        "complex128": nifti(np.zeros(SHAPE, np.complex128)),
        "colour": nifti(colour),
        "unknown type": nifti(datatype=999),
        "other number of bits": nifti(bitpix=64),
        "negative sides": nifti(dim=(3, -16, 18, 20, 1, 1, 1, 1)),
        "no voxels": nifti(dim=(3, 0, 18, 20, 1, 1, 1, 1)),
        "a billion voxels": nifti(dim=sides),
        "long side": nifti(dim=(3, 32767, 18, 20, 1, 1, 1, 1)),
        "eight axes": nifti(dim=(8, 16, 18, 20, 1, 1, 1, 1)),
        "NaN voxel size": nifti(pixdim=(1, np.nan, 2, 2, 0, 0, 0, 0)),
        "voxels of a kilometre": nifti(pixdim=(1, 1e6, 2, 2, 0, 0, 0, 0)),
        "infinite scale": nifti(scl_slope=np.inf),
        "voxels before the header": nifti(vox_offset=-1e9),
        "voxels far away": nifti(vox_offset=1e15),
        "a pair's header": nifti(magic=b"ni1"),
        "wrong magic": nifti(magic=b"abc"),
        "NaN everywhere": nifti(np.full(SHAPE, np.nan, np.float32)),
        "nothing but zeros": nifti(np.zeros(SHAPE, np.int16)),
        "gzip cut off": packed[:-20],
        "gzip damaged": packed[:100] + bytes(50) + packed[150:],
        "two gzip members": packed + packed,
        "rubbish behind its gzip": packed + b"rubbish",
        "gzip of nothing": gzip.compress(b""),
        "gzip in gzip": gzip.compress(packed),
        "gzip bomb": zeros_gz(4096),
        "gzip bomb with a header": zeros_gz(4096, nifti(dim=sides)[:352]),
        "gzip bomb with a small header": zeros_gz(4096, whole),
        "gzip that lies about its size": packed[:-4] + b"\xff\xff\xff\xff",
        "zip bomb": zipped(),
        "text": b"patient,mmse\n1,22\n",
        "DICOM": bytes(128) + b"DICM" + bytes(400),
        "MGH": struct.pack(">7i", 1, 256, 256, 256, 1, 0, 0) + bytes(400),
    }


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scan.nii", bytes(2**24))
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 8, height: int = 8, rows: bytes | None = None, *, depth: int = 8, colour: int = 0) -> bytes:
    """A grey PNG; `rows`: unpacked, with their filter bytes."""
    pixels = bytes(height * (width + 1)) if rows is None else rows
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")


def pictures() -> dict[str, bytes]:
    good = png()
    return {
        "empty": b"",
        "cut off": good[:40],
        "no end": good[:-12],
        "rubbish behind": good + b"rubbish",
        "wrong checksum": good[:30] + b"\0" + good[31:],
        "no pixels": png(0, 0, b"\0"),
        "ten billion pixels": png(100_000, 100_000, b"\0"),
        "a bomb": png(8, 8, bytes(2**26)),
        "fewer pixels than declared": png(64, 64, b"\0"),
        "unknown depth": png(depth=3),
        "unknown colours": png(colour=5),
        "unknown critical chunk": good[:33] + chunk(b"ABCD", b"x") + good[33:],
        "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(100),
        "GIF": b"GIF89a\xff\xff\xff\xff" + bytes(20),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "scan": nifti(),
    }


def part(name: str, content: bytes, file: str | None = None, disposition: str = "form-data") -> bytes:
    named = f'; filename="{file}"' if file is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: {disposition}; name="{name}"{named}\r\n\r\n'
    return head.encode("utf-8", "surrogatepass") + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def forms() -> dict[str, tuple[bytes, str]]:
    """Body and content-type."""
    request, scan = part("request", REQUEST), part("scan", nifti(), "a.nii")
    return {
        "no boundary named": (form(request), "multipart/form-data"),
        "empty boundary": (form(request), 'multipart/form-data; boundary=""'),
        "long boundary": (form(request), f"multipart/form-data; boundary={'b' * 5000}"),
        "another boundary": (form(request), "multipart/form-data; boundary=other"),
        "empty": (b"", FORM),
        "no part": (form(), FORM),
        "no last boundary": (request + scan, FORM),
        "cut off in a head": (request + b"--frontier\r\nContent-Disp", FORM),
        "no request": (form(scan), FORM),
        "two requests": (form(request, request), FORM),
        "two scans": (form(request, scan, scan), FORM),
        "an unknown part": (form(request, part("evil", b"x")), FORM),
        "a part without a name": (form(request, b"--frontier\r\nContent-Disposition: form-data\r\n\r\nx\r\n"), FORM),
        "a part without a head": (form(request, b"--frontier\r\n\r\nx\r\n"), FORM),
        "a head without a colon": (form(b"--frontier\r\nrubbish\r\n\r\nx\r\n"), FORM),
        "ten thousand parts": (form(*[part("x", b"")] * 10_000), FORM),
        "thirteen pictures": (form(request, *[part("slices", png(), "a.png")] * 13), FORM),
        "a request that is no JSON": (form(part("request", b"{"), scan), FORM),
        "a request of 2 MiB": (form(part("request", bytes(2**21)), scan), FORM),
        "a long segmenter": (form(request, part("segmenter", b"s" * 10_000)), FORM),
        "a segmenter with orders": (form(request, scan, part("segmenter", b"$(id)")), FORM),
        "a field strength of words": (form(request, scan, part("field_strength_t", b"strong")), FORM),
        "an infinite field strength": (form(request, scan, part("field_strength_t", b"inf")), FORM),
        "a form in a form": (form(request, part("scan", form(scan), "a.nii")), FORM),
        "a head of a megabyte": (form(part("x" * 2**20, b"x")), FORM),
    }


def cases() -> Iterator[Hostile]:
    for name, content in scans().items():
        yield _upload("scans", name, part("scan", content, "scan.nii.gz"))
    for name in ("complex64", "4-D", "gzip bomb with a small header"):
        yield _upload("label maps", name, part("segmentation", scans()[name], "aseg.nii.gz"))
    yield _upload("label maps", "labels with fractions", part("segmentation", nifti(np.full(SHAPE, 0.5)), "a.nii"))
    for name, content in pictures().items():
        yield _upload("pictures", name, part("slices", content, "slice.png"))
    for name, (content, kind) in forms().items():
        yield Hostile("forms", name, content, headers={"content-type": kind})
    for place, trick in enumerate(PATH_TRICKS):
        yield _upload("names of files", f"{place}", part("scan", nifti()[:400], trick))


def _upload(family: str, name: str, file: bytes) -> Hostile:
    return Hostile(family, name, form(part("request", REQUEST), file), headers={"content-type": FORM})
