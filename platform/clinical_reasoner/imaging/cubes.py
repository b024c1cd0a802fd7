"""The head of a scan as a cube for 3-D networks: one place, size and orientation for all, and nothing of its header."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from scipy.ndimage import affine_transform, gaussian_filter

from clinical_reasoner.imaging.headers import voxel_lengths
from clinical_reasoner.imaging.heads import FIELD_MM, grey, head_centre, head_mask, in_ras
from clinical_reasoner.imaging.scans import ScanError

_BLUR = 0.4
"""SD of the blur before voxels are left out, in units of the new ones: finer detail would become a false pattern."""


def head_cube(t1: np.ndarray, affine: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The head (uint8, [side, side, side]) in a field of FIELD_MM around its middle, and the cube's affine (mm, RAS+).

    Axes grow to the patient's right, to the front and up, along the voxel grid of the scan; intensities are normalised
    as in slices. Raises SliceError for a volume without content.
    """
    t1, _, turned = in_ras(t1, None, affine)
    voxel_mm = voxel_lengths(turned)
    head = head_mask(t1)
    steps = FIELD_MM / side / voxel_mm  # voxels of the scan for each of the cube
    offset = np.array(head_centre(head, voxel_mm.tolist())) + (0.5 - side / 2) * steps
    smooth = gaussian_filter(t1, np.where(steps > 1, _BLUR * steps, 0.0))
    cube = affine_transform(
        smooth, steps, offset, output_shape=(side,) * 3, order=1, mode="constant", cval=float(t1.min())
    )
    place = np.eye(4)
    place[:3, :3], place[:3, 3] = np.diag(steps), offset
    return grey(cube, t1, head), turned @ place


def nifti_bytes(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    """A gzipped NIfTI-1 file of voxels and their place (mm, RAS+); its header holds nothing else."""
    image: Any = nib.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), mtime=0)


def cube_voxels(file: bytes) -> np.ndarray:
    """Grey values (uint8, [side, side, side]) of a file of `nifti_bytes`. Raises ScanError for what is none."""
    try:
        image: Any = nib.Nifti1Image.from_bytes(gzip.decompress(file))
        voxels: np.ndarray = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError) as error:
        raise ScanError(f"cube: cannot be read ({type(error).__name__})") from error
    if voxels.dtype != np.uint8 or len(set(voxels.shape)) != 1 or voxels.ndim != 3:
        raise ScanError(f"cube: {voxels.dtype} voxels of shape {voxels.shape} are no cube of grey values")
    return voxels
