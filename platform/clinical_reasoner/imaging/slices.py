"""Slices of a scan for vision models: coronal at the hippocampus, axial at the ventricles, sagittal; and their montage.

Pictures are in radiological convention (the patient's right is on the left, in front is up or left), of one scale for
all scans, and the same however the voxels of the scan lie in its file. Slices follow the voxel grid: a head that lies
askew in its scan lies askew in the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import nibabel as nib
import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from clinical_reasoner.errors import UserError
from clinical_reasoner.imaging.labels import FREESURFER

Plane = Literal["sagittal", "coronal", "axial"]
_AXIS: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}

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
POSITIONS: dict[str, tuple[Plane, float]] = {
    "coronal_hippocampus": ("coronal", 0.42),
    "coronal_hippocampus_front": ("coronal", 0.48),
    "axial_ventricles": ("axial", 0.58),
    "sagittal_hippocampus": ("sagittal", 0.33),
}
"""Slices of the montage in its order; without a label map, parts of the way from left to right, from the back to the
front and from the bottom to the top of the head: this project's choice."""


class SliceError(UserError):
    """A scan cannot be shown; the message holds neither its path nor the person's id."""


@dataclass(frozen=True)
class Slice:
    """One plane of a volume in RAS+ order."""

    name: str
    plane: Plane
    index: int
    """Voxel index along the plane's axis."""


def choose_slices(
    labels: np.ndarray | None, t1: np.ndarray, voxel_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[Slice, ...]:
    """The slices of POSITIONS for a volume in RAS+ order; `voxel_mm` is the length of a voxel along each axis.

    From the label map (FreeSurfer's or SynthSeg's ids, same grid): through the largest coronal cross-section of the
    hippocampus, half-way from there to its front, through the largest axial cross-section of the lateral ventricles and
    the largest sagittal one of the left hippocampus. Without a label map, or where it lacks these, by position in the
    head. Raises SliceError for a volume without content or of another grid than the label map.
    """
    _check_grid(labels, t1)
    bounds = _head_bounds(_head(t1), voxel_mm)
    chosen = {}
    for name, (plane, part) in POSITIONS.items():
        low, high = bounds[_AXIS[plane]]
        chosen[name] = round(low + part * (high - low))
    if labels is not None:
        chosen |= _by_labels(labels)
    return tuple(Slice(name, POSITIONS[name][0], index) for name, index in chosen.items())


def slice_images(
    t1: np.ndarray, labels: np.ndarray | None, affine: np.ndarray, size: int = 256
) -> dict[str, np.ndarray]:
    """Each slice by name as a grey picture (uint8, [size, size]); the scan may lie in any orientation."""
    t1, labels, voxel_mm = _in_ras(t1, labels, affine)
    chosen = choose_slices(labels, t1, voxel_mm)
    head = _head(t1)
    black, white = np.percentile(t1[head], INTENSITY_PERCENTILES)
    bounds = _head_bounds(head, voxel_mm)
    centre = [(low + high) / 2 for low, high in bounds]
    pictures = {}
    for one in chosen:
        plane = _picture(t1, one, voxel_mm, centre, size)
        grey = (plane - black) / max(white - black, np.finfo(np.float32).tiny)
        pictures[one.name] = np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    return pictures


def montage(t1: np.ndarray, labels: np.ndarray | None, affine: np.ndarray, size: int = 512) -> np.ndarray:
    """The four slices in one grey picture (uint8, [size, size]): two coronal above, axial and sagittal below.

    `affine` maps voxel indices to mm (RAS+); image and label map share it and may lie in any orientation.
    """
    return compose(slice_images(t1, labels, affine, size // 2))


def compose(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """The montage of the four pictures of `slice_images`."""
    first, second, third, fourth = (pictures[name] for name in POSITIONS)
    return np.concatenate([np.concatenate([first, second], axis=1), np.concatenate([third, fourth], axis=1)])


def save_png(picture: np.ndarray, file: Path | BinaryIO) -> None:
    """Write a grey picture as PNG, with nothing beside its pixels."""
    Image.fromarray(picture).save(file, format="PNG")


def _in_ras(
    t1: np.ndarray, labels: np.ndarray | None, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, tuple[float, ...]]:
    """Image and label map with axes to the right, to the front and up, or as near to it as they lie; voxel lengths."""
    _check_grid(labels, t1)
    affine = np.asarray(affine, dtype=float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise SliceError("the affine does not say how the voxels lie")
    image, turned = _turned(t1.astype(np.float32), affine)
    voxel_mm = tuple(np.linalg.norm(turned[:3, :3], axis=0).tolist())
    known = np.isfinite(image)
    image = np.where(known, image, image[known].min() if known.any() else 0)
    return image, None if labels is None else _turned(labels.astype(np.int32), affine)[0], voxel_mm


def _turned(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The array with axes that grow to the right, to the front and up, and the affine of these axes."""
    turned = nib.as_closest_canonical(nib.Nifti2Image(array, affine))  # type: ignore[no-untyped-call]
    return np.asarray(turned.dataobj), turned.affine


def _check_grid(labels: np.ndarray | None, t1: np.ndarray) -> None:
    if t1.ndim != 3 or 0 in t1.shape:
        raise SliceError("not a volume of three dimensions")
    if labels is not None and labels.shape != t1.shape:
        raise SliceError("label map and image have different grids")


def _head(t1: np.ndarray) -> np.ndarray:
    """Voxels of the head: true where they are clearly brighter than air."""
    shown = t1[t1 > t1.min()]  # around a stripped skull all voxels are the same
    if not len(shown):
        raise SliceError("the image is empty")
    low, high = np.percentile(shown, (2, 98))
    head: np.ndarray = t1 > low + HEAD_LEVEL * (high - low)
    if not head.any():
        raise SliceError("the image has no contrast")
    return head


def _head_bounds(head: np.ndarray, voxel_mm: Sequence[float]) -> list[tuple[int, int]]:
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


def _by_labels(labels: np.ndarray) -> dict[str, int]:
    """Indices of those slices whose structures the label map has."""
    chosen = {}
    hippocampus = np.isin(labels, _ids("left-hippocampus", "right-hippocampus"))
    ventricles = np.isin(labels, _ids("left-lateral-ventricle", "right-lateral-ventricle"))
    if hippocampus.any():
        sections = hippocampus.sum(axis=(0, 2))
        largest = int(np.argmax(sections))
        chosen["coronal_hippocampus"] = largest
        chosen["coronal_hippocampus_front"] = round((largest + int(np.flatnonzero(sections)[-1])) / 2)
    left = np.isin(labels, _ids("left-hippocampus"))
    if left.any():
        chosen["sagittal_hippocampus"] = int(np.argmax(left.sum(axis=(1, 2))))
    if ventricles.any():
        chosen["axial_ventricles"] = int(np.argmax(ventricles.sum(axis=(0, 1))))
    return chosen


def _ids(*structures: str) -> list[int]:
    return [label for structure in structures for label in FREESURFER.ids[structure]]


def _picture(t1: np.ndarray, one: Slice, voxel_mm: Sequence[float], centre: Sequence[float], size: int) -> np.ndarray:
    """The slice as [rows, columns] of equal mm: rows from the top or the front, columns from the patient's right or
    the front."""
    axis = _AXIS[one.plane]
    across, up = (other for other in range(3) if other != axis)
    steps_mm = (np.arange(size) + 0.5 - size / 2) * (FIELD_MM / size)
    rows = centre[up] - steps_mm / voxel_mm[up]
    columns = centre[across] - steps_mm / voxel_mm[across]
    plane = np.take(t1, one.index, axis=axis)
    picture: np.ndarray = map_coordinates(
        plane, np.meshgrid(columns, rows), order=1, mode="constant", cval=float(t1.min())
    )
    return picture
