"""Where the head lies in a scan, however its voxels are stored, and what is black and white there."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np

from clinical_reasoner.errors import UserError

FIELD_MM = 210.0
"""Side of the square that a slice shows, around the middle of the head, mm: heads are at most this long."""
HEAD_HEIGHT_MM = 160.0
"""From the vertex down, mm: below it is the neck, which scans show to different lengths."""
HEAD_LEVEL = 0.1
"""A voxel is of the head above this part of the way from the 2nd to the 98th percentile of intensity."""
LEAST_SECTION_MM2 = 500.0
"""Section of the head in the planes where it begins; a few bright voxels are less."""
INTENSITY_PERCENTILES = (1.0, 99.0)
"""Of the head; shown as black and white."""


class SliceError(UserError):
    """A scan cannot be shown; the message holds neither its path nor the person's id."""


def in_ras(
    t1: np.ndarray, labels: np.ndarray | None, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Image and label map with axes to the right, to the front and up, or as near to it as they lie; and their affine.

    Raises SliceError when they are no volumes of one grid with a place."""
    check_grid(labels, t1)
    affine = np.asarray(affine, dtype=float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise SliceError("the affine does not say how the voxels lie")
    image, turned = _turned(t1.astype(np.float32), affine)
    known = np.isfinite(image)
    image = np.where(known, image, image[known].min() if known.any() else 0)
    return image, None if labels is None else _turned(labels.astype(np.int32), affine)[0], turned


def _turned(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The array with axes that grow to the right, to the front and up, and the affine of these axes."""
    turned = nib.as_closest_canonical(nib.Nifti2Image(array, affine))  # type: ignore[no-untyped-call]
    return np.asarray(turned.dataobj), turned.affine


def check_grid(labels: np.ndarray | None, t1: np.ndarray) -> None:
    if t1.ndim != 3 or 0 in t1.shape:
        raise SliceError("not a volume of three dimensions")
    if labels is not None and labels.shape != t1.shape:
        raise SliceError("label map and image have different grids")


def head_mask(t1: np.ndarray) -> np.ndarray:
    """Voxels of the head: true where they are clearly brighter than air. Raises SliceError where none is."""
    shown = t1[t1 > t1.min()]  # around a stripped skull all voxels are the same
    if not len(shown):
        raise SliceError("the image is empty")
    low, high = np.percentile(shown, (2, 98))
    head: np.ndarray = t1 > low + HEAD_LEVEL * (high - low)
    if not head.any():
        raise SliceError("the image has no contrast")
    return head


def head_bounds(head: np.ndarray, voxel_mm: Sequence[float]) -> list[tuple[int, int]]:
    """First and last plane of the head along each axis, the neck left out."""
    bounds = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        section_mm2 = head.sum(axis=others) * (voxel_mm[others[0]] * voxel_mm[others[1]])
        inside = np.flatnonzero(section_mm2 >= min(LEAST_SECTION_MM2, section_mm2.max()))
        bounds.append((int(inside[0]), int(inside[-1])))
    bottom, top = bounds[2]
    bounds[2] = (max(bottom, top - round(HEAD_HEIGHT_MM / voxel_mm[2])), top)
    return bounds


def head_centre(head: np.ndarray, voxel_mm: Sequence[float]) -> list[float]:
    """Voxel indices of the middle of the head, the neck left out."""
    return [(low + high) / 2 for low, high in head_bounds(head, voxel_mm)]


def grey(values: np.ndarray, t1: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Intensities as 0..255 (uint8), black and white at INTENSITY_PERCENTILES of the head."""
    black, white = np.percentile(t1[head], INTENSITY_PERCENTILES)
    shown = (values - black) / max(white - black, np.finfo(np.float32).tiny)
    pixels: np.ndarray = np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    return pixels
