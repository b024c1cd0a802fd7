"""Regional volumes of label maps: exact, the same in every orientation, and silent rather than wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from clinical_reasoner.cohort.visits import REGIONS
from clinical_reasoner.imaging.labels import FREESURFER, PARCELS, LabelScheme
from clinical_reasoner.imaging.scans import LabelMap, ScanError, open_label_map
from clinical_reasoner.imaging.volumes import checked_icv, missing_regions, ratios, regional_volumes

nib: Any = nibabel  # typed in part
COUNTS = {label: 20 + label % 7 for labels in FREESURFER.ids.values() for label in labels}
"""Voxels of each label; the brain's white matter and the CSF around it make it a head of 1.5 L."""
BIG = {2: 18_000, 41: 18_000, 24: 14_000}
VOXEL_MM3 = 27.0


def counts_with(**changes: int) -> dict[int, int]:
    return {**COUNTS, **BIG, **{int(label.removeprefix("l")): count for label, count in changes.items()}}


def laid_out(counts: dict[int, int], side: int = 40) -> np.ndarray:
    """Labels one after the other in a cube."""
    array = np.zeros(side**3, np.int16)
    labels = np.repeat(list(counts), list(counts.values()))
    array[: len(labels)] = labels
    return array.reshape(side, side, side)


def label_map(array: np.ndarray, voxel_mm: float = 3.0) -> LabelMap:
    return LabelMap(array.astype(np.int32), np.diag([voxel_mm] * 3 + [1]), voxel_mm**3, (voxel_mm,) * 3)


def both(*labels: int) -> float:
    return sum(counts_with()[label] for label in labels) * VOXEL_MM3


def test_every_region() -> None:
    volumes = regional_volumes(label_map(laid_out(counts_with())), FREESURFER)
    assert set(volumes) == set(REGIONS) and missing_regions(volumes) == ()
    assert volumes["hippocampus"] == pytest.approx(both(17, 53))
    assert volumes["inferior_lateral_ventricle"] == pytest.approx(both(5, 44))
    assert volumes["entorhinal"] == pytest.approx(both(1006, 2006))
    assert volumes["occipital"] == pytest.approx(both(1005, 1011, 1013, 1021, 2005, 2011, 2013, 2021))
    assert volumes["wm_hypointensities"] == pytest.approx(both(77, 78, 79))
    assert volumes["icv"] == pytest.approx(sum(counts_with().values()) * VOXEL_MM3)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPI", "AIR"])
@pytest.mark.parametrize("tilt", [0.0, 18.0])
def test_orientation_changes_no_volume(tmp_path: Path, axes: str, tilt: float) -> None:
    angle = np.radians(tilt)
    affine = np.diag([3.0, 3, 3, 1])
    affine[1:3, 1:3] = 3 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    image = nib.Nifti1Image(laid_out(counts_with()), affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    nib.save(image.as_reoriented(turn), tmp_path / "a.nii.gz")
    volumes = regional_volumes(open_label_map(tmp_path / "a.nii.gz", None), FREESURFER)
    assert volumes == pytest.approx(regional_volumes(label_map(laid_out(counts_with())), FREESURFER), rel=1e-5)


def test_region_without_one_of_its_structures_is_missing() -> None:
    counts = counts_with(l53=0, l1029=0, l77=0)
    volumes = regional_volumes(label_map(laid_out(counts)), FREESURFER)
    assert missing_regions(volumes) == tuple(
        f"{region}: a structure of it is missing or has no voxels"
        for region in ("hippocampus", "superior_parietal", "parietal", "wm_hypointensities")
    )
    assert missing_regions(volumes, ["amygdala"]) == ()


def test_dkt_parcels() -> None:
    dropped = {f"l{base + number}": 0 for base in (1000, 2000) for number in (1, 32, 33)}
    volumes = regional_volumes(label_map(laid_out(counts_with(**dropped))), FREESURFER)
    assert missing_regions(volumes) == ()


def test_synthseg_without_parcels() -> None:
    counts = {label: count for label, count in counts_with(l77=0, l78=0, l79=0).items() if label < 1000}
    volumes = regional_volumes(label_map(laid_out(counts)), FREESURFER)
    assert set(volumes) == {"hippocampus", "amygdala", "lateral_ventricle", "inferior_lateral_ventricle", "icv"}


@pytest.mark.parametrize("csf", [0, 40])
def test_labels_that_end_at_the_brain_give_no_icv(csf: int) -> None:
    """FreeSurfer's own label 24 is a remnant: its labels add up to a plausible but wrong 1.2 L."""
    volumes = regional_volumes(label_map(laid_out(counts_with(l24=csf))), FREESURFER)
    assert "icv" not in volumes and "hippocampus" in volumes
    (reason,) = missing_regions(volumes)
    assert reason.startswith("icv: the segmentation does not reach the skull")


@pytest.mark.parametrize("voxel_mm", [2.5, 3.7])
def test_icv_that_is_no_heads(voxel_mm: float) -> None:
    with pytest.raises(ScanError, match=r"intracranial volume outside 0\.9 to 2\.2 L"):
        regional_volumes(label_map(laid_out(counts_with()), voxel_mm), FREESURFER)


@pytest.mark.parametrize(("icv", "good"), [(0.9e6, True), (2.2e6, True), (0.89e6, False), (2.21e6, False)])
def test_bounds_of_icv(icv: float, good: bool) -> None:
    if good:
        assert checked_icv(icv) == icv
    else:
        with pytest.raises(ScanError):
            checked_icv(icv)
    with pytest.raises(ScanError):
        checked_icv(float("nan"))


def test_chosen_structures_alone_give_no_icv() -> None:
    assert set(regional_volumes(label_map(laid_out({17: 150, 53: 160, 24: 100})), FREESURFER)) == {"hippocampus"}


def test_skull_is_not_inside_it() -> None:
    counts = counts_with()
    with_skull = {**counts, 165: 3000, 258: 4000}
    assert regional_volumes(label_map(laid_out(with_skull)), FREESURFER) == regional_volumes(
        label_map(laid_out(counts)), FREESURFER
    )


def test_ids_of_another_scheme() -> None:
    scheme = LabelScheme({"left-hippocampus": (13,), "right-hippocampus": (32, 33), "csf": (35,)})
    volumes = regional_volumes(label_map(laid_out({13: 100, 32: 90, 33: 10})), scheme)
    assert volumes == {"hippocampus": pytest.approx(200 * VOXEL_MM3)}
    assert regional_volumes(label_map(laid_out({13: 100, 32: 90, 33: 10})), FREESURFER) == {}


def test_scan_in_place_of_a_label_map() -> None:
    scan = np.random.default_rng(0).integers(0, 255, (40, 40, 40))
    with pytest.raises(ScanError, match="not a label map of this scheme"):
        regional_volumes(label_map(scan), FREESURFER)


def test_parcels_are_those_of_the_table() -> None:
    assert {1000 + number for number in PARCELS} <= COUNTS.keys()


def test_occupancy_falls_when_the_horn_takes_the_place_of_the_hippocampus() -> None:
    volumes = {"hippocampus": 7000.0, "inferior_lateral_ventricle": 1750.0}
    assert ratios(volumes) == {"hippocampal_occupancy": pytest.approx(0.8)}
    assert ratios({"hippocampus": 5000.0, "inferior_lateral_ventricle": 5000.0})["hippocampal_occupancy"] == 0.5
    assert ratios({"hippocampus": 7000.0}) == {} == ratios({"inferior_lateral_ventricle": 1750.0})
