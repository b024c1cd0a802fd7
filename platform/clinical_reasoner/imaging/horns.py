"""How round the horns of the lateral ventricles are in coronal cross-section.

This project's own measure: studies describe horns as sharp or round and give no formula.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clinical_reasoner.imaging.labels import FREESURFER, REGION_STRUCTURES, LabelScheme
from clinical_reasoner.imaging.scans import LabelMap

FEWEST_VOXELS = 12
"""Of a horn; the shape of fewer is that of the grid."""
FRONTAL_PART = 0.25
"""Share of the lateral ventricle's voxels, from its front, that are its frontal horn."""


def horn_roundness(label_map: LabelMap, scheme: LabelScheme = FREESURFER) -> dict[str, float]:
    """`temporal_horn_roundness` and `frontal_horn_roundness`, 0..1, 1 = round, mean of left and right.

    sqrt(λmin/λmax) of the covariance of (x, z) in mm within coronal slices: the ratio of the axes of an elliptic
    horn. The temporal horn is the inferior lateral ventricle, the frontal horn the front quarter of the lateral
    ventricle's voxels. A horn is left out when one side of it has fewer than FEWEST_VOXELS voxels.
    """
    found = {
        "temporal_horn_roundness": _sides(label_map, scheme, "inferior_lateral_ventricle", front=1.0),
        "frontal_horn_roundness": _sides(label_map, scheme, "lateral_ventricle", front=FRONTAL_PART),
    }
    return {name: float(np.mean(sides)) for name, sides in found.items() if len(sides) == 2}


def _sides(label_map: LabelMap, scheme: LabelScheme, region: str, front: float) -> list[float]:
    """Roundness of each side that has enough voxels."""
    sides = []
    for structure in REGION_STRUCTURES[region].required:
        turned = label_map.array.T  # an array in the order of its file is so searched as it lies in memory
        found = [np.argwhere(turned == label)[:, ::-1] for label in scheme.ids.get(structure, ())]
        voxels = np.concatenate(found) if found else np.empty((0, 3), np.intp)
        if len(voxels):
            voxels = voxels[voxels[:, 1] >= np.quantile(voxels[:, 1], 1 - front)]
        if len(voxels) >= FEWEST_VOXELS:
            sides.append(_roundness(voxels, label_map.affine[:3, :3]))
    return sides


def _roundness(voxels: npt.NDArray[np.intp], axes_mm: npt.NDArray[np.float64]) -> float:
    """Of voxel indices [n, 3]; `axes_mm`: the three edges of a voxel, its columns."""
    mm = (voxels @ axes_mm.T)[:, [0, 2]]
    _, coronal = np.unique(voxels[:, 1], return_inverse=True)
    # Around each slice's own centre: a horn's course from slice to slice is not part of its cross-section.
    centres = np.stack([np.bincount(coronal, mm[:, axis]) for axis in (0, 1)], axis=1) / np.bincount(coronal)[:, None]
    around = mm - centres[coronal]
    # The voxels' own extent, without which a row of voxels would have no width.
    edges = axes_mm[[0, 2]][:, [0, 2]]
    covariance = around.T @ around / len(around) + edges @ edges.T / 12
    smallest, largest = np.linalg.eigvalsh(covariance)
    return float(np.sqrt(smallest / largest))
