"""Headers of NIfTI-1, NIfTI-2 and FreeSurfer's MGH: what they claim of the voxels, and whether that can be a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader
from nibabel.spatialimages import HeaderDataError

MOST_VOXELS = 512**3
FEWEST_ON_A_SIDE = 8
"""Voxels; fewer are a slice, a surface or a table in an image's clothes."""
MOST_EXTRA_BYTES = 16 * 2**20
"""Of a file beyond its voxels: extensions before, FreeSurfer's tags after them. Nothing is read beyond."""
SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.2, 4.0
FARTHEST_MM = 1e5
"""From the origin of the scanner or template to the first voxel."""
LARGEST_ANISOTROPY = 10.0
"""Longest side of a voxel by its shortest."""
_ROUNDING = 1e-3
"""NIfTI-1 keeps its geometry in single precision."""
HEADER_BYTES = 540
"""The longest header's."""
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_NIFTI = {
    size.to_bytes(4, order): (kind, order)  # a header starts with its size, which tells kind and byte order
    for kind, size in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540))
    for order in _ORDERS
}
"""First four bytes -> nibabel's class and the byte order."""
_MGH = (1).to_bytes(4, "big")


class ScanError(ValueError):
    """Why a file of a scan cannot be used; without its path and without the person's id."""


@dataclass(frozen=True)
class Layout:
    """What a header says about its file."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    """Bytes before the voxels, in the file or in what its gzip holds."""
    affine: npt.NDArray[np.float64]
    slope: float | None
    inter: float | None

    @property
    def bytes(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def layout_of(head: bytes) -> Layout:
    """From a file's first HEADER_BYTES. Raises ScanError for what is no header, or not that of one 3-D scan of real
    numbers in millimetres with a known orientation and a size that can be."""
    header = _header_of(head)
    try:
        with np.errstate(all="ignore"):  # what overflows is checked below
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        shape = tuple(int(side) for side in header.get_data_shape())
        dtype = header.get_data_dtype()
        offset = header.get_data_offset()
        slope, inter = header.get_slope_inter()
        stated_mm3 = math.prod(abs(float(zoom)) for zoom in header.get_zooms()[:3])
    except (HeaderDataError, ArithmeticError, LookupError, ValueError):
        raise ScanError("its header cannot be used") from None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3 and min(shape) > 0:
        raise ScanError("4-D: not one volume")
    if len(shape) != 3 or min(shape) < FEWEST_ON_A_SIDE:
        raise ScanError(f"not a volume: fewer than {FEWEST_ON_A_SIDE} voxels on a side")
    if math.prod(shape) > MOST_VOXELS:
        raise ScanError(f"its header claims more than {MOST_VOXELS} voxels")
    if dtype.kind == "c":
        raise ScanError("complex voxels")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ScanError("its type of voxels is not supported")
    if not header.template_dtype.itemsize <= offset <= MOST_EXTRA_BYTES:
        raise ScanError("its header cannot be used")
    _check_geometry(affine, stated_mm3)
    return Layout((shape[0], shape[1], shape[2]), dtype, offset, affine, slope, inter)


def _header_of(head: bytes) -> Any:
    """The header of nibabel's class for its format, in its byte order; with a known orientation, in mm."""
    if head[:4] in _NIFTI:
        kind, order = _NIFTI[head[:4]]
        if len(head) < kind.template_dtype.itemsize:
            raise ScanError("cut off in its header")
        header = kind(head[: kind.template_dtype.itemsize], endianness=order, check=False)  # type: ignore[no-untyped-call]
        if not header["magic"].item().startswith(kind.single_magic):
            raise ScanError("not an image: a header without its voxels, or Analyze")
        if not 1 <= int(header["dim"][0]) <= 7:
            raise ScanError("its header cannot be used")
        if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
            raise ScanError("its header tells no orientation")
        if int(header["xyzt_units"]) & 7 not in (0, 2):
            raise ScanError("its header is not in millimetres")
        return header
    if head[:4] != _MGH:
        raise ScanError("not an image")
    if len(head) < DATA_OFFSET:
        raise ScanError("cut off in its header")
    if head[28:30] == b"\0\0":  # nibabel would put voxels of 1 mm there
        raise ScanError("its header tells no orientation")
    return MGHHeader(head, check=False)  # type: ignore[no-untyped-call]


def voxel_lengths(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of a voxel along each axis of the array, mm."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _check_geometry(affine: npt.NDArray[np.float64], stated_mm3: float) -> None:
    if not np.abs(affine).max() < FARTHEST_MM:  # NaN too
        raise ScanError("its affine is not finite or far off")
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    if not voxel_mm3 > 0:
        raise ScanError("its affine is singular")
    zooms = voxel_lengths(affine)
    if zooms.max() > LARGEST_VOXEL_MM * (1 + _ROUNDING) or zooms.min() < SMALLEST_VOXEL_MM * (1 - _ROUNDING):
        raise ScanError(f"its voxels are not {SMALLEST_VOXEL_MM:g} to {LARGEST_VOXEL_MM:g} mm long")
    if zooms.max() > LARGEST_ANISOTROPY * zooms.min():
        raise ScanError(f"its voxels are more than {LARGEST_ANISOTROPY:g} times as long as wide")
    # An affine into a template's space scales; it is also how a skewed one shows.
    if not (stated_mm3 > 0 and abs(voxel_mm3 / stated_mm3 - 1) < 0.02):
        raise ScanError("its affine and its voxel size disagree")
