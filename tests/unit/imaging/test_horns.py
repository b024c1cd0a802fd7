"""Roundness of the ventricles' horns, on ellipsoids whose roundness is known."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_reasoner.imaging.horns import FEWEST_VOXELS, horn_roundness
from clinical_reasoner.imaging.labels import LabelScheme
from clinical_reasoner.imaging.scans import LabelMap

Axes = tuple[float, float, float]


def head(horns: dict[int, Axes], voxel: Axes = (1.0, 1.0, 1.0), slope: float = 0.0, turn: float = 0.0) -> LabelMap:
    """Ellipsoids (half axes x, y, z in mm), one in each quarter; `slope`: mm to the side per mm to the front; `turn`:
    degrees of the grid about the y axis."""
    angle = np.radians(turn)
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    shape = np.ceil(120 / np.array(voxel)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = rotation * voxel
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mm = grid @ affine[:3, :3].T + affine[:3, 3]
    array = np.zeros(shape, np.int32)
    for label, axes in horns.items():
        centre = np.array([-25 if label < 40 else 25, 0, 20 if label in (4, 43) else -20])
        offset = mm - centre
        offset[..., 0] -= slope * offset[..., 1]
        array[((offset / axes) ** 2).sum(axis=-1) <= 1] = label
    return LabelMap(array, affine, float(np.prod(voxel)), voxel)


@pytest.mark.parametrize("axes", [(3.0, 20.0, 9.0), (9.0, 20.0, 3.0), (6.0, 20.0, 9.0), (7.0, 20.0, 7.0)])
def test_ratio_of_the_axes(axes: Axes) -> None:
    x, _, z = axes
    found = horn_roundness(head({5: axes, 44: axes, 4: axes, 43: axes}))
    assert found["temporal_horn_roundness"] == pytest.approx(min(x, z) / max(x, z), abs=0.02)
    assert found["frontal_horn_roundness"] == pytest.approx(min(x, z) / max(x, z), abs=0.06)


def test_mean_of_the_sides() -> None:
    found = horn_roundness(head({5: (4, 20, 8), 44: (8, 20, 8)}))
    assert found == {"temporal_horn_roundness": pytest.approx(0.75, abs=0.02)}


@pytest.mark.parametrize("voxel", [(3.0, 3.0, 3.0), (1.0, 1.0, 3.0), (2.0, 3.0, 1.0)])
def test_voxels_of_other_sizes(voxel: Axes) -> None:
    found = horn_roundness(head({5: (5, 20, 10), 44: (5, 20, 10)}, voxel))
    assert found["temporal_horn_roundness"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("turn", [10.0, -30.0])
def test_turned_grid(turn: float) -> None:
    found = horn_roundness(head({5: (5, 20, 10), 44: (5, 20, 10)}, turn=turn))
    assert found["temporal_horn_roundness"] == pytest.approx(0.5, abs=0.02)


def test_course_of_a_horn_does_not_count() -> None:
    found = horn_roundness(head({5: (4, 25, 8), 44: (4, 25, 8)}, slope=0.6))
    assert found["temporal_horn_roundness"] == pytest.approx(0.5, abs=0.03)


def test_frontal_horn_is_the_front_of_the_ventricle() -> None:
    label_map = head({4: (4, 30, 8), 43: (4, 30, 8)})
    before = horn_roundness(label_map)["frontal_horn_roundness"]
    back = np.argwhere(np.isin(label_map.array, (4, 43)))
    back = back[back[:, 1] < 60]
    label_map.array[back[:, 0], back[:, 1], back[:, 2]] = 0
    label_map.array[20:50, 52:59, 75:85] = 4  # the back becomes a broad slab of about as many voxels
    label_map.array[70:100, 52:59, 75:85] = 43
    assert horn_roundness(label_map)["frontal_horn_roundness"] == pytest.approx(before, abs=0.1)


def test_row_of_voxels_is_thin_and_not_without_width() -> None:
    array = np.zeros((40, 40, 40), np.int32)
    array[5, 20, 5 : 5 + FEWEST_VOXELS] = 5
    array[30, 20, 5 : 5 + FEWEST_VOXELS] = 44
    found = horn_roundness(LabelMap(array, np.eye(4), 1.0, (1.0, 1.0, 1.0)))
    assert found == {"temporal_horn_roundness": pytest.approx(1 / FEWEST_VOXELS)}


@pytest.mark.parametrize("left", [{}, {5: (0.4, 2.0, 0.4)}])
def test_side_with_too_few_voxels_leaves_the_horn_out(left: dict[int, Axes]) -> None:
    assert horn_roundness(head({44: (5, 20, 10), **left})) == {}


def test_other_ids() -> None:
    label_map = head({5: (5, 20, 10), 44: (5, 20, 10)})
    scheme = LabelScheme({"left-lateral-ventricle": (5,), "right-lateral-ventricle": (44,)})
    assert set(horn_roundness(label_map, scheme)) == {"frontal_horn_roundness"}
