"""The header of a NIfTI file that a stranger made, checked byte by byte before anything is made of its numbers.

What remains to be asked of a header that holds (orientation, geometry, units) is asked as of any scan:
`imaging/headers.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import isfinite, prod

from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.imaging.headers import HEADER_BYTES as HEADER_BYTES
from clinical_reasoner.imaging.headers import Layout, ScanError, layout_of
from clinical_reasoner.serving.upload_errors import TOO_LARGE, WRONG_KIND, UploadError

LONGEST_EXTENSIONS = 2**20
"""Bytes between header and voxels; they are read over."""
SMALLEST_MM, LARGEST_MM = 0.2, 10.0
"""Sides of a voxel that can be those of a head's scan; `imaging/headers.py` then asks for less than 4 mm."""
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
"""Bits of a voxel by the `datatype` codes that are taken: whole and real numbers of up to 64 bits."""
_REFUSED = {
    1: "voxels of one bit",
    32: "complex voxels",
    128: "colour (RGB) voxels",
    1536: "voxels of 128 bits",
    1792: "complex voxels",
    2048: "complex voxels",
    2304: "colour (RGBA) voxels",
}


@dataclass(frozen=True)
class _Format:
    """Where the fields of one version lie."""

    size: int
    magic_at: int
    magic: bytes
    pair: bytes
    """Magic of a header whose voxels are in another file."""
    dim: tuple[int, str]
    """Offset, and struct's code without its byte order."""
    type_and_bits: tuple[int, str]
    pixdim: tuple[int, str]
    offset: tuple[int, str]
    scale: tuple[int, str]


_NIFTI1 = _Format(348, 344, b"n+1\0", b"ni1\0", (40, "8h"), (70, "2h"), (76, "8f"), (108, "f"), (112, "2f"))
_NIFTI2 = _Format(
    540, 4, b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n", (16, "8q"), (12, "2h"), (104, "8d"), (168, "q"), (176, "2d")
)


def read_header(head: bytes, limits: UploadsConfig, field: str) -> Layout:
    """What the first HEADER_BYTES of a NIfTI-1 or NIfTI-2 file say, in either byte order.

    Raises UploadError: 415 for what is no NIfTI file, 413 for more voxels than `limits` allow, 422 for anything else
    that cannot be a 3-D scan of real numbers.
    """
    kind, order = _kind_of(head, field)
    _check_sides(_unpack(head, order, kind.dim), limits, field)
    code, bits = _unpack(head, order, kind.type_and_bits)
    if code not in _BITS:
        raise UploadError(field, _REFUSED.get(code, "its type of voxels is not supported") + "; send real numbers")
    if bits != _BITS[code]:
        raise UploadError(field, "its header states two sizes of a voxel")
    (offset,) = _unpack(head, order, kind.offset)
    if not (isfinite(offset) and offset == int(offset) and kind.size <= offset <= kind.size + LONGEST_EXTENSIONS):
        raise UploadError(field, "its header places the voxels where they cannot be (vox_offset)")
    if not all(isfinite(number) for number in _unpack(head, order, kind.scale)):
        raise UploadError(field, "the scale of its voxels is not finite (scl_slope, scl_inter)")
    sides_mm = [abs(side) for side in _unpack(head, order, kind.pixdim)[1:4]]
    if not all(SMALLEST_MM * 0.999 <= side <= LARGEST_MM * 1.001 for side in sides_mm):  # NaN too
        raise UploadError(field, f"its voxels are not {SMALLEST_MM:g} to {LARGEST_MM:g} mm long")
    try:
        return layout_of(head)
    except ScanError as error:
        raise UploadError(field, str(error)) from None


def _kind_of(head: bytes, field: str) -> tuple[_Format, str]:
    """Version and byte order, which the first number tells: the size of the header."""
    for kind in (_NIFTI1, _NIFTI2):
        for order in "<>":
            if head[:4] != struct.pack(f"{order}i", kind.size):
                continue
            if len(head) < kind.size:
                raise UploadError(field, "cut off in its header")
            magic = head[kind.magic_at :][: len(kind.magic)]
            if magic == kind.magic:
                return kind, order
            if magic == kind.pair:
                raise UploadError(field, "a header without its voxels; send one file (.nii or .nii.gz)", WRONG_KIND)
    raise UploadError(field, "not a NIfTI file (.nii or .nii.gz)", WRONG_KIND)


def _check_sides(dim: tuple[int, ...], limits: UploadsConfig, field: str) -> None:
    axes, sides = dim[0], dim[1 : dim[0] + 1]
    if not 1 <= axes <= 7 or min(sides) < 1:
        raise UploadError(field, "its header states a number of voxels that cannot be (dim)")
    if any(side > 1 for side in sides[3:]):
        raise UploadError(field, f"{axes}-D: send one volume")
    if axes < 3:
        raise UploadError(field, f"{axes}-D: not a volume")
    if max(sides) > limits.max_side:
        raise UploadError(field, f"more than {limits.max_side} voxels on a side", TOO_LARGE)
    if prod(sides) > limits.max_voxels:
        raise UploadError(field, f"more than {limits.max_voxels} voxels", TOO_LARGE)


def _unpack(head: bytes, order: str, place: tuple[int, str]) -> tuple[int, ...]:
    """Numbers of a field; some fields hold floats."""
    start, code = place
    return struct.unpack_from(order + code, head, start)
