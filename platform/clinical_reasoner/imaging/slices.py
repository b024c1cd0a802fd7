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

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from clinical_reasoner.imaging.headers import voxel_lengths
from clinical_reasoner.imaging.heads import FIELD_MM, check_grid, grey, head_bounds, head_centre, head_mask, in_ras
from clinical_reasoner.imaging.labels import FREESURFER

Plane = Literal["sagittal", "coronal", "axial"]
_AXIS: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}

POSITIONS: dict[str, tuple[Plane, float]] = {
    "coronal_hippocampus": ("coronal", 0.42),
    "coronal_hippocampus_front": ("coronal", 0.48),
    "axial_ventricles": ("axial", 0.58),
    "sagittal_hippocampus": ("sagittal", 0.33),
}
"""Slices of the montage in its order; without a label map, parts of the way from left to right, from the back to the
front and from the bottom to the top of the head: this project's choice."""


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
    check_grid(labels, t1)
    bounds = head_bounds(head_mask(t1), voxel_mm)
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
    t1, labels, turned = in_ras(t1, labels, affine)
    voxel_mm = voxel_lengths(turned).tolist()
    head = head_mask(t1)
    centre = head_centre(head, voxel_mm)
    return {
        one.name: grey(_picture(t1, one, voxel_mm, centre, size), t1, head)
        for one in choose_slices(labels, t1, voxel_mm)
    }


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
