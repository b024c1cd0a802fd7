"""One subject as FreeSurfer's tables of versions 6 and 7 and as its label map: the same volumes but for the correction
for partial volume, and never the same segmenter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinical_reasoner.cohort.freesurfer import read_freesurfer
from clinical_reasoner.cohort.visits import REGIONS, Visit
from clinical_reasoner.imaging.labels import PARCELS
from clinical_reasoner.imaging.measuring import measure_item
from clinical_reasoner.imaging.phantom_cohort import Phantom
from tests.unit.imaging.test_stats_files import ROWS, aparc, aseg
from tests.unit.imaging.visit_files import how, item, values, write

MOST = 5581.1 / 5077
"""Largest ratio of a structure's volume in a table to that of its voxels (or the reverse): that of a lateral ventricle
in a table of FreeSurfer's."""
STAMPS = {
    "6": "freesurfer-Linux-centos6_x86_64-stable-pub-v6.0.0-2beb96c",
    "7": "freesurfer-linux-centos7_x86_64-7.4.1-20230614-7eb8460",
}


def tables(folder: Path, phantom: Phantom, version: str) -> None:
    """Of the phantom, corrected as those of a real subject, by MOST at most; cortical parcels by 8 % up or down."""
    counts = np.bincount(phantom.labels.ravel(), minlength=3000)
    voxel_mm3 = float(abs(np.linalg.det(phantom.affine)))
    corrections = {label: volume / voxels if voxels else 1.0 for label, voxels, volume, _ in ROWS}
    structures = [
        (label, int(counts[label]), counts[label] * voxel_mm3 * min(max(corrections[label], 1 / MOST), MOST), name)
        for label, _, _, name in ROWS
    ]
    icv_mm3 = phantom.volumes["icv"]
    (folder / "stats").mkdir(parents=True)
    (folder / "stats/aseg.stats").write_text(aseg(version, icv_mm3, structures), encoding="utf-8")
    for side, first in (("lh", 1000), ("rh", 2000)):
        parcels = {
            name: round(counts[first + number] * voxel_mm3 * (1.08 if number % 2 else 0.92))
            for number, name in PARCELS.items()
        }
        text = aparc(side, version, etiv=icv_mm3, parcels=parcels)
        (folder / f"stats/{side}.aparc.stats").write_text(text, encoding="utf-8")


def label_map(folder: Path, phantom: Phantom) -> None:
    write(folder / "mri/aparc+aseg.mgz", phantom.labels.astype(np.int32), phantom)


def measured(tmp_path: Path, version: str, make: Callable[[Path], None]) -> dict[str, Any]:
    """The subject's folder as the reader finds it and as it is measured."""
    subjects = tmp_path / "subjects"
    folder = subjects / "p1"
    make(folder)
    (folder / "scripts").mkdir()
    (folder / "scripts/build-stamp.txt").write_text(STAMPS[version], encoding="utf-8")
    (visit,) = read_freesurfer(subjects)
    assert isinstance(visit, Visit) and visit.segmentation_path
    files = {"image_path": None, "segmentation_path": visit.segmentation_path, "segmenter": visit.segmenter}
    return measure_item(item(subjects, **files), how(subjects))


@pytest.mark.parametrize("version", ["6", "7"])
def test_tables_and_label_map_agree_within_the_correction(tmp_path: Path, phantom: Phantom, version: str) -> None:
    of_tables = measured(tmp_path / "tables", version, lambda folder: tables(folder, phantom, version))
    counted = measured(tmp_path / "voxels", version, lambda folder: label_map(folder, phantom))
    assert (of_tables["reason"], counted["reason"]) == (None, None)
    tabled_mm3, counted_mm3 = values(of_tables), values(counted)
    assert {name: counted_mm3[name] for name in REGIONS} == pytest.approx(phantom.volumes, rel=1e-6)
    for region in REGIONS:  # five cortical ones and the lobes among them
        assert tabled_mm3[region] == pytest.approx(counted_mm3[region], rel=MOST - 1 + 1e-3), region
    for region in ("lateral_ventricle", "inferior_lateral_ventricle", "entorhinal", "precuneus"):
        assert tabled_mm3[region] != pytest.approx(counted_mm3[region], rel=0.05), "counting is not the correction"
    name = {"6": "freesurfer-6.0", "7": "freesurfer-7.4"}[version]
    assert (of_tables["segmenter"], counted["segmenter"]) == (name, f"{name}+voxels")


def test_versions_write_the_same_volumes_and_are_two_segmenters(tmp_path: Path, phantom: Phantom) -> None:
    sixth = measured(tmp_path / "6", "6", lambda folder: tables(folder, phantom, "6"))
    seventh = measured(tmp_path / "7", "7", lambda folder: tables(folder, phantom, "7"))
    assert values(sixth) == values(seventh)
    assert sixth["segmenter"] != seventh["segmenter"]


def test_tables_go_before_the_label_map_beside_them(tmp_path: Path, phantom: Phantom) -> None:
    def both(folder: Path) -> None:
        tables(folder, phantom, "7")
        label_map(folder, phantom)

    with_map = measured(tmp_path / "both", "7", both)
    alone = measured(tmp_path / "tables", "7", lambda folder: tables(folder, phantom, "7"))
    assert with_map["segmenter"] == alone["segmenter"] == "freesurfer-7.4"
    assert values(with_map) | values(alone) == values(with_map), "besides, the label map tells the shapes"
