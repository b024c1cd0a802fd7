"""Where the structures of a phantom head lie: the order in which each structure takes the voxels of a grid.

Positions are in mm from the centre of the head, x to the right, y to the front, z up (RAS+), and do not move with the
size of the head; the cortex follows its surface. All orders depend on the grid alone and are computed once for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clinical_reasoner.imaging.labels import FREESURFER, LOBE_PARCELS, REGION_STRUCTURES
from clinical_reasoner.imaging.labels import PARCELS as DESIKAN

SIDES = ("left", "right")
HEAD_SEMI_AXES_MM = (70.0, 80.0, 64.0)
"""Half axes of a skull's inner surface of 1.501 L; other heads have the same shape."""
HEAD_MM3 = 4 / 3 * np.pi * 70 * 80 * 64
WHITE_SURFACE = 0.82
"""Radius at which the cortex starts, as a part of the head's."""
SKULL, SCALP = 1.06, 1.14
"""Outer radii of skull and scalp, as parts of the head's."""


def label_of(structure: str) -> int:
    """FreeSurfer's label of a structure, e.g. `left-hippocampus`."""
    return FREESURFER.ids[structure][0]


@dataclass(frozen=True)
class Blob:
    """An ellipsoid in each hemisphere."""

    structure: str
    """Name of the label, less its side."""
    centre_mm: tuple[float, float, float]
    """Distance from the midline, to the front, up."""
    semi_axes_mm: tuple[float, float, float]
    widens: bool = False
    """While its length and height grow by t, its width grows by t²: its coronal cross-section becomes rounder. Else all
    grow by t."""
    healthy_mm3: float = 0.0
    """Room of a healthy structure in a head of 1.501 L, both sides, mm3: what tissue does not fill is CSF."""

    def label(self, side: str) -> int:
        return label_of(f"{side}-{self.structure}")


BLOBS: Mapping[str, Blob] = {
    "hippocampus": Blob("hippocampus", (28, -18, -18), (7, 20, 6), healthy_mm3=7200),
    "amygdala": Blob("amygdala", (25, 9, -18), (8, 7, 8), healthy_mm3=3200),
    "thalamus": Blob("thalamus", (12, -10, -5), (9, 14, 9), healthy_mm3=13500),
    "inferior_lateral_ventricle": Blob("inf-lat-vent", (37, -15, -16), (3.2, 15, 5.5), widens=True),
    "lateral_ventricle": Blob("lateral-ventricle", (16, -2, 16), (7, 28, 13), widens=True),
}
"""In the order in which they take voxels: tissue before the ventricles, which then flow around it."""


@dataclass(frozen=True)
class Parcel:
    """One Desikan parcel of a hemisphere."""

    name: str
    """Desikan's name of it."""
    mean_mm3: float
    """Typical volume of both hemispheres, mm3: the parcel's part of the cortex, and of what its lobe has left."""
    direction: tuple[float, float, float]
    """From the centre of the head: away from the midline, to the front, up."""

    @property
    def lobe(self) -> str:
        """One of LOBES, or `other`: cingulate and insula."""
        return _LOBE_OF.get(self.name, "other")

    @property
    def region(self) -> str | None:
        """Name of the region that the parcel is by itself, if it is one."""
        return _REGION_OF.get(self.name)

    def label(self, side: str) -> int:
        return label_of(f"ctx-{'lh' if side == 'left' else 'rh'}-{self.name}")


_LOBE_OF = {DESIKAN[number]: lobe for lobe, numbers in LOBE_PARCELS.items() for number in numbers}
_REGION_OF = {
    parts.required[0].removeprefix("ctx-lh-"): region
    for region, parts in REGION_STRUCTURES.items()
    if region not in LOBE_PARCELS
}
# Sizes and places are this project's choice, in the range of FreeSurfer's in old age.
PARCELS = (
    Parcel("superiorfrontal", 42000, (0.25, 0.6, 0.75)),
    Parcel("rostralmiddlefrontal", 29000, (0.6, 0.75, 0.35)),
    Parcel("caudalmiddlefrontal", 11500, (0.55, 0.35, 0.8)),
    Parcel("parsopercularis", 8200, (0.85, 0.4, 0.25)),
    Parcel("parsorbitalis", 4300, (0.6, 0.75, -0.15)),
    Parcel("parstriangularis", 7000, (0.78, 0.6, 0.1)),
    Parcel("lateralorbitofrontal", 14000, (0.45, 0.75, -0.45)),
    Parcel("medialorbitofrontal", 10000, (0.12, 0.8, -0.5)),
    Parcel("precentral", 24000, (0.65, 0.0, 0.8)),
    Parcel("paracentral", 6800, (0.1, -0.15, 1.0)),
    Parcel("frontalpole", 1900, (0.2, 1.0, -0.05)),
    Parcel("superiortemporal", 22000, (0.95, 0.0, -0.1)),
    Parcel("middletemporal", 20500, (0.9, -0.15, -0.4)),
    Parcel("inferiortemporal", 20000, (0.75, -0.2, -0.65)),
    Parcel("bankssts", 4600, (0.9, -0.45, 0.05)),
    Parcel("fusiform", 17500, (0.45, -0.4, -0.8)),
    Parcel("transversetemporal", 2000, (0.95, -0.1, 0.15)),
    Parcel("entorhinal", 3700, (0.3, 0.15, -0.95)),
    Parcel("temporalpole", 5000, (0.6, 0.45, -0.7)),
    Parcel("parahippocampal", 4000, (0.2, -0.2, -1.0)),
    Parcel("superiorparietal", 24000, (0.35, -0.65, 0.75)),
    Parcel("inferiorparietal", 25000, (0.75, -0.65, 0.35)),
    Parcel("supramarginal", 19000, (0.85, -0.3, 0.5)),
    Parcel("postcentral", 18000, (0.65, -0.25, 0.8)),
    Parcel("precuneus", 17500, (0.1, -0.65, 0.75)),
    Parcel("lateraloccipital", 22500, (0.5, -0.95, 0.0)),
    Parcel("lingual", 12500, (0.2, -0.85, -0.5)),
    Parcel("cuneus", 5800, (0.15, -0.95, 0.3)),
    Parcel("pericalcarine", 4000, (0.08, -1.0, -0.05)),
    Parcel("posteriorcingulate", 6000, (0.05, -0.35, 0.95)),
    Parcel("isthmuscingulate", 4800, (0.05, -0.6, -0.6)),
    Parcel("caudalanteriorcingulate", 3700, (0.05, 0.3, 0.95)),
    Parcel("rostralanteriorcingulate", 4600, (0.05, 0.7, 0.7)),
    Parcel("insula", 13000, (1.0, 0.25, 0.0)),
)


@dataclass(frozen=True)
class Layout:
    """Voxels (places in the flattened grid) in the order in which each structure takes them."""

    radius: np.ndarray
    """[voxels] distance from the centre, 1 at the surface of a head of HEAD_MM3."""
    head: np.ndarray
    """Voxels by radius, as far out as whole ellipsoids fit the grid."""
    blobs: Mapping[tuple[str, str], np.ndarray]
    """(name, side) -> voxels of that side, innermost first."""
    sectors: Mapping[tuple[str, str], np.ndarray]
    """(parcel, side) -> voxels under the parcel, by radius. Together they are the head."""


@lru_cache(maxsize=4)
def layout_of(grid: int, voxel_mm: float) -> Layout:
    """The layout of a cubic grid centred on the head; takes about a second, once per grid and process."""
    axis = (np.arange(grid) - (grid - 1) / 2) * voxel_mm
    mm = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    radius = np.sqrt(((mm / HEAD_SEMI_AXES_MM) ** 2).sum(axis=1))
    order = np.argsort(radius, kind="stable")
    head = order[radius[order] <= grid * voxel_mm / 2 / max(HEAD_SEMI_AXES_MM)]
    folded = np.abs(mm[head, 0])[:, None] * (1, 0, 0) + mm[head] * (0, 1, 1)
    on_side = {"left": mm[head, 0] < 0, "right": mm[head, 0] >= 0}
    parcel = _parcel_of(folded / HEAD_SEMI_AXES_MM, radius[head])
    blobs, sectors = {}, {}
    for name, blob in BLOBS.items():
        growth = _growth_to_reach(folded - blob.centre_mm, blob)
        for side in SIDES:
            ranked = np.argsort(growth[on_side[side]], kind="stable")
            blobs[name, side] = head[on_side[side]][ranked]
    for index, one in enumerate(PARCELS):
        for side in SIDES:
            sectors[one.name, side] = head[(parcel == index) & on_side[side]]
    return Layout(radius, head, blobs, sectors)


def _growth_to_reach(offset_mm: np.ndarray, blob: Blob) -> np.ndarray:
    """The growth at which the blob's surface reaches each place: u where x²/(a u)² + y²/(b² u) + z²/(c² u) = 1 for one
    that widens, else the factor t of all half axes."""
    x, y, z = ((offset_mm / blob.semi_axes_mm) ** 2).T
    grown: np.ndarray = (y + z + np.sqrt((y + z) ** 2 + 4 * x)) / 2 if blob.widens else np.sqrt(x + y + z)
    return grown


def _parcel_of(place: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Index into PARCELS of the parcel above each place (in units of the head's half axes).

    A power diagram of the parcels' directions, weighted until each parcel's part of the cortical shell is its part of
    the cortex, so that the cortex is about equally thick everywhere.
    """
    seeds = np.array([parcel.direction for parcel in PARCELS])
    seeds /= np.linalg.norm(seeds, axis=1, keepdims=True)
    wanted = np.array([parcel.mean_mm3 for parcel in PARCELS])
    wanted = wanted / wanted.sum()
    closeness = place @ seeds.T / np.maximum(radius, 1e-9)[:, None]
    shell = closeness[(radius > WHITE_SURFACE) & (radius < 1)]
    weights = np.zeros(len(seeds))
    for step in np.geomspace(0.3, 0.02, 100):
        held = np.bincount(np.argmax(shell + weights, axis=1), minlength=len(seeds)) / len(shell)
        weights += step * (wanted - held) / np.sqrt(wanted)
    nearest: np.ndarray = np.argmax(closeness + weights, axis=1)
    return nearest
