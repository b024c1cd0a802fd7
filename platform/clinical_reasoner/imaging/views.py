"""One picture of a scan for vision-language models: coronal views of the medial temporal lobes and of the whole head.

Twelve views in rows of four, each of a fixed scale in mm, so that the size of the head shows, and each as thick as
VIEW_MM, so that small structures are seen whole. Radiological convention (the patient's right is on the left, the front
of an axial view is up), the same however the voxels of the scan lie in its file. Views follow the voxel grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clinical_reasoner.imaging.headers import voxel_lengths
from clinical_reasoner.imaging.heads import FIELD_MM, grey, head_bounds, head_mask, in_ras
from clinical_reasoner.imaging.labels import FREESURFER

VIEW_PIXELS = 96
"""Side of a view."""
VIEW_MM = 5.0
"""Thickness of a view: the mean of what lies within it."""
ZOOM_MM = 112.0
"""Side of a view of the medial temporal lobes: both of them, down to the base of the brain."""
COLUMNS = 4
HIPPOCAMPUS_PARTS = (0.5, 0.42, 0.38)
"""Where the hippocampi lie in a head without a label map: parts of the way from left to right, back to front and bottom
to top; this project's choice."""
_SAMPLES = 4
"""Of each side of a pixel, and of a view's thickness."""


@dataclass(frozen=True)
class View:
    """One view, placed from the middle between the hippocampi."""

    plane: Literal["coronal", "axial"]
    offset_mm: float
    """To the front, or up."""
    field_mm: float
    """Side of the square that it shows: ZOOM_MM around that middle, or FIELD_MM around that of the head."""


VIEWS = (
    *(View("coronal", offset, ZOOM_MM) for offset in (17.5, 12.5, 7.5, 2.5, -2.5, -7.5, -12.5, -17.5)),
    View("coronal", 0.0, FIELD_MM),
    View("coronal", -30.0, FIELD_MM),
    View("axial", 0.0, FIELD_MM),
    View("axial", 34.0, FIELD_MM),
)
"""In the order of the picture: the hippocampi from their front to their back; then the head at the temporal lobes, the
parietal lobes, the temporal lobes in an axial view, and the ventricles."""
PICTURE_PIXELS = (VIEW_PIXELS * (len(VIEWS) // COLUMNS), VIEW_PIXELS * COLUMNS)
"""Height and width."""


def views_picture(t1: np.ndarray, labels: np.ndarray | None, affine: np.ndarray) -> np.ndarray:
    """The picture (grey, uint8, PICTURE_PIXELS) of a scan in any orientation; `affine` maps voxel indices to mm (RAS+).

    The label map (FreeSurfer's ids, same grid) tells where the hippocampi are; without one, or where it lacks them, the
    bounds of the head do. Raises SliceError for what cannot be shown.
    """
    t1, labels, turned = in_ras(t1, labels, affine)
    voxel_mm = voxel_lengths(turned).tolist()
    head = head_mask(t1)
    bounds = head_bounds(head, voxel_mm)
    middle = _between_hippocampi(labels, bounds)
    centre = [(low + high) / 2 for low, high in bounds]
    views = [_view(t1, one, voxel_mm, middle, centre) for one in VIEWS]
    rows = [np.concatenate(views[start : start + COLUMNS], axis=1) for start in range(0, len(views), COLUMNS)]
    return grey(np.concatenate(rows), t1, head)


def _between_hippocampi(labels: np.ndarray | None, bounds: Sequence[tuple[int, int]]) -> list[float]:
    """Voxel indices of the middle between the centres of both hippocampi."""
    if labels is not None:
        found = [np.argwhere(labels == FREESURFER.ids[f"{side}-hippocampus"][0]) for side in ("left", "right")]
        if all(len(voxels) for voxels in found):
            middle: list[float] = np.mean([voxels.mean(axis=0) for voxels in found], axis=0).tolist()
            return middle
    return [low + part * (high - low) for part, (low, high) in zip(HIPPOCAMPUS_PARTS, bounds, strict=True)]


def _view(
    t1: np.ndarray, view: View, voxel_mm: Sequence[float], middle: Sequence[float], centre: Sequence[float]
) -> np.ndarray:
    """Intensities [rows, columns], rows from the top or the front, columns from the patient's right."""
    normal, up = (1, 2) if view.plane == "coronal" else (2, 1)
    around = middle if view.field_mm == ZOOM_MM else centre
    pixel_mm = view.field_mm / VIEW_PIXELS
    steps_mm = (VIEW_PIXELS / 2 - 0.5 - np.arange(VIEW_PIXELS)) * pixel_mm
    through = _weights(np.array([view.offset_mm]), VIEW_MM, middle[normal], voxel_mm[normal], t1.shape[normal])[0]
    used = np.flatnonzero(through)
    black = float(t1.min())  # outside of the scan
    plane = np.tensordot(np.take(t1, used, axis=normal) - black, through[used], axes=(normal, 0))
    rows = _weights(steps_mm, pixel_mm, around[up], voxel_mm[up], t1.shape[up])
    columns = _weights(steps_mm, pixel_mm, around[0], voxel_mm[0], t1.shape[0])
    seen: np.ndarray = rows @ plane.T @ columns.T + black
    return seen


def _weights(places_mm: np.ndarray, extent_mm: float, centre: float, voxel_mm: float, voxels: int) -> np.ndarray:
    """Weight of each voxel along an axis [places, voxels] in the mean over `extent_mm` around each place, mm from the
    voxel index `centre`; linear between voxels."""
    within = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
    samples = centre + (places_mm[:, None] + extent_mm * within) / voxel_mm
    weights: np.ndarray = np.clip(1 - np.abs(samples[..., None] - np.arange(voxels)), 0, None).mean(axis=1)
    return weights
