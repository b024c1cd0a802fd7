"""Phantoms: a label map and a T1-like image of a head with exactly the given regional volumes.

They prove plumbing and calibration, never clinical validity: every difference between two phantoms was put in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clinical_reasoner.cohort.visits import LOBES, REGIONS
from clinical_reasoner.imaging import phantom_shapes as shapes
from clinical_reasoner.imaging.phantom_shapes import BLOBS, PARCELS, SIDES, Layout, Parcel, label_of, layout_of

CSF, WM_HYPOINTENSITIES = label_of("csf"), label_of("wm-hypointensities")
HIGHEST_LABEL = max(parcel.label("right") for parcel in PARCELS)
OTHER_CORTEX = sum(parcel.mean_mm3 for parcel in PARCELS if parcel.lobe == "other") / sum(
    parcel.mean_mm3 for parcel in PARCELS if parcel.lobe != "other"
)
"""Cingulate and insular cortex as a part of the four lobes."""
THALAMUS_MM3 = 13500
"""Of a head of HEAD_MM3, both sides: no region of its own, it fills the place beside the ventricles."""
SIDE_SD = 0.01
"""SD of the left hemisphere's part of a structure around one half."""
INTENSITY = {
    "csf": 35.0,
    "cortex": 105.0,
    "deep": 115.0,
    "lesion": 120.0,
    "white": 150.0,
    "skull": 15.0,
    "scalp": 185.0,
}
"""Means of a T1-weighted image, 0..255."""
BIAS, NOISE_SD = 0.06, 3.5
"""Largest relative deviation of the slow bias, and SD of the noise in units of intensity."""


def render_phantom(
    volumes: Mapping[str, float], rng: np.random.Generator, grid: int = 64, voxel_mm: float = 3.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label map (int16, FreeSurfer ids), T1-like image (uint8) and affine (RAS+, mm) of a head with these volumes.

    Each structure takes exactly round(V / voxel volume) voxels. Raises ValueError where a volume is missing or does not
    fit the head or the grid; the message names the region.
    """
    layout = layout_of(grid, float(voxel_mm))
    counts = _voxel_counts(volumes, voxel_mm**3)
    if not 0 < counts["icv"] <= len(layout.head):
        raise ValueError(f"icv does not fit a grid of {grid} voxels of {voxel_mm:g} mm")
    labels = np.zeros(grid**3, dtype=np.int16)
    head = layout.head[: counts["icv"]]
    free = np.zeros(grid**3, dtype=bool)
    free[head] = True
    _place_blobs(labels, free, layout, counts, rng)
    _place_cortex(labels, free, layout, counts, rng)
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = -(grid - 1) / 2 * voxel_mm
    shape = (grid, grid, grid)
    return labels.reshape(shape), _t1(labels, layout.radius, layout.radius[head[-1]], rng).reshape(shape), affine


def _voxel_counts(volumes: Mapping[str, float], voxel_mm3: float) -> dict[str, int]:
    for name in REGIONS:
        if not 0 <= volumes.get(name, -1.0) < float("inf"):
            raise ValueError(f"{name} has no volume")
    counts = {name: round(volumes[name] / voxel_mm3) for name in REGIONS}
    counts["thalamus"] = round(THALAMUS_MM3 * (volumes["icv"] / shapes.HEAD_MM3) ** 0.75 / voxel_mm3)
    counts["other"] = round(OTHER_CORTEX * sum(counts[lobe] for lobe in LOBES))
    return counts


def _place_blobs(
    labels: np.ndarray, free: np.ndarray, layout: Layout, counts: Mapping[str, int], rng: np.random.Generator
) -> None:
    """Deep structures, the CSF that their atrophy leaves, and white-matter hypointensities around the ventricles."""
    rooms = []
    voxels_per_mm3 = counts["icv"] / shapes.HEAD_MM3
    for name, blob in BLOBS.items():
        for side, count in zip(SIDES, _halves(counts[name], rng), strict=True):
            ranked = layout.blobs[name, side]
            _take(labels, free, ranked, count, blob.label(side), name)
            rooms.append(ranked[: round(blob.healthy_mm3 / 2 * voxels_per_mm3)])
    for side, count in zip(SIDES, _halves(counts["wm_hypointensities"], rng), strict=True):
        around = layout.blobs["lateral_ventricle", side]
        _take(labels, free, around, count, WM_HYPOINTENSITIES, "wm_hypointensities")
    for room in rooms:
        _take(labels, free, room, int(free[room].sum()), CSF, "csf")


def _place_cortex(
    labels: np.ndarray, free: np.ndarray, layout: Layout, counts: Mapping[str, int], rng: np.random.Generator
) -> None:
    """Each parcel's cortex outwards from the white surface, CSF above it and white matter below."""
    white_surface = shapes.WHITE_SURFACE * layout.radius[layout.head[counts["icv"] - 1]]
    for parcel, total in _parcel_counts(counts):
        for side, count in zip(SIDES, _halves(total, rng), strict=True):
            column = layout.sectors[parcel.name, side]
            column = column[free[column]]
            start = min(int(np.searchsorted(layout.radius[column], white_surface)), len(column) - count)
            if start < 0:
                raise ValueError(f"{parcel.region or parcel.lobe} does not fit the head")
            labels[column[:start]] = label_of(f"{side}-cerebral-white-matter")
            labels[column[start : start + count]] = parcel.label(side)
            labels[column[start + count :]] = CSF


def _parcel_counts(counts: Mapping[str, int]) -> list[tuple[Parcel, int]]:
    """Voxels of each parcel, both sides; those that are no region share what the regions leave of their lobe."""
    placed = []
    for lobe in (*LOBES, "other"):
        regions = [(parcel, counts[parcel.region]) for parcel in PARCELS if parcel.lobe == lobe and parcel.region]
        rest = [parcel for parcel in PARCELS if parcel.lobe == lobe and not parcel.region]
        left_over = counts[lobe] - sum(count for _, count in regions)
        if left_over < 0:
            raise ValueError(f"{lobe} is smaller than its regions")
        shares = _apportion(left_over, [parcel.mean_mm3 for parcel in rest])
        placed += [*regions, *zip(rest, shares, strict=True)]
    return placed


def _take(labels: np.ndarray, free: np.ndarray, ranked: np.ndarray, count: int, label: int, name: str) -> None:
    """Give the label to the first `count` free voxels of the order."""
    taken = ranked[free[ranked]][:count]
    if len(taken) < count:
        raise ValueError(f"{name} does not fit the head")
    labels[taken] = label
    free[taken] = False


def _halves(count: int, rng: np.random.Generator) -> tuple[int, int]:
    """A count on the left and on the right; at least one voxel each where there are two."""
    left = round(count * (0.5 + SIDE_SD * float(rng.normal())))
    left = min(max(left, min(1, count // 2)), count - min(1, count // 2))
    return left, count - left


def _apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to the total."""
    ends = [round(total * part) for part in np.cumsum(weights) / sum(weights)]
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _t1(labels: np.ndarray, radius: np.ndarray, head_radius: float, rng: np.random.Generator) -> np.ndarray:
    """Means of the labels with skull and scalp around them, a slow bias and noise."""
    means = np.full(HIGHEST_LABEL + 1, INTENSITY["cortex"], dtype=np.float32)
    for name, blob in BLOBS.items():
        for side in SIDES:
            means[blob.label(side)] = INTENSITY["csf" if "ventricle" in name else "deep"]
            means[label_of(f"{side}-cerebral-white-matter")] = INTENSITY["white"]
    means[CSF], means[WM_HYPOINTENSITIES], means[0] = INTENSITY["csf"], INTENSITY["lesion"], 0
    image = means[labels]
    outside = labels == 0
    image[outside & (radius < shapes.SCALP * head_radius)] = INTENSITY["scalp"]
    image[outside & (radius < shapes.SKULL * head_radius)] = INTENSITY["skull"]
    grid = round(len(labels) ** (1 / 3))
    axis = np.linspace(-1, 1, grid, dtype=np.float32)
    slopes = rng.uniform(-1, 1, size=(3, 2))
    slow = [slope * axis + curve * (axis**2 - 0.5) for slope, curve in slopes]
    bias = slow[0][:, None, None] + slow[1][:, None] + slow[2]
    image *= (1 + BIAS * bias / np.abs(bias).max()).ravel()
    image += NOISE_SD * rng.standard_normal(len(image), dtype=np.float32)
    rounded: np.ndarray = np.clip(np.rint(np.abs(image)), 0, 255).astype(np.uint8)
    return rounded
