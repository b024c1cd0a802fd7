"""What is measured of one visit, what is warned of, and what is said of files that cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clinical_reasoner.cohort.visits import REGIONS
from clinical_reasoner.imaging.labels import FREESURFER, LabelScheme
from clinical_reasoner.imaging.measuring import (
    FACIAL_TISSUE,
    ITEMS,
    MEASURED,
    OTHER_GRID,
    UNKNOWN_SEGMENTER,
    counted_segmenter,
    freesurfer_labels,
    measure_batch,
    measure_item,
    same_grid,
    stats_tables,
)
from clinical_reasoner.imaging.phantom_cohort import Phantom
from clinical_reasoner.imaging.scans import LabelMap, Volume
from clinical_reasoner.imaging.slices import POSITIONS
from clinical_reasoner.imaging.views import PICTURE_PIXELS
from tests.unit.imaging.test_stats_files import aseg
from tests.unit.imaging.visit_files import freesurfer, how, item, nib, truncate, values, write


def test_phantom_is_measured_exactly(study: Path, phantom: Phantom) -> None:
    row = measure_item(item(study), how(study))
    assert (row["number"], row["reason"], row["segmenter"], row["warnings"]) == ("000012", None, "phantom", [])
    found = values(row)
    assert {name: found[name] for name in REGIONS} == pytest.approx(phantom.volumes, rel=1e-6)
    units = {measure["name"]: measure["unit"] for measure in row["measures"]}
    assert set(units.values()) == {"mm3", "1"} and units["temporal_horn_roundness"] == "1"
    assert not (study.parent / "run").exists(), "no pictures were asked for"


def test_missing_regions_and_an_unknown_segmenter_are_warnings(study: Path, phantom: Phantom) -> None:
    labels = phantom.labels.copy()
    labels[labels == FREESURFER.ids["left-hippocampus"][0]] = 0
    labels[labels == FREESURFER.ids["right-inf-lat-vent"][0]] = 0
    write(study / "dseg.nii.gz", labels, phantom)
    row = measure_item(item(study, segmenter=None), how(study))
    found = values(row)
    assert not {"hippocampus", "inferior_lateral_ventricle", "temporal_horn_roundness"} & set(found)
    assert found["amygdala"] == phantom.volumes["amygdala"]
    assert [text.split(":")[0] for text in row["warnings"]] == [
        "hippocampus",
        "inferior_lateral_ventricle",
        "temporal_horn_roundness",
        UNKNOWN_SEGMENTER.split(":")[0],
    ]


def test_pictures_have_a_number_and_no_name(study: Path) -> None:
    row = measure_item(item(study), how(study, slices=True))
    assert row["slice_paths"] == ["slices/000012.png", *(f"slices/000012-{name}.png" for name in POSITIONS)]
    sizes = [Image.open(study.parent / "run" / name).size for name in row["slice_paths"]]
    assert sizes == [(128, 128)] + [(64, 64)] * 4
    assert row["picture_path"] == "slices/000012-views.png"
    assert Image.open(study.parent / "run" / row["picture_path"]).size == PICTURE_PIXELS[::-1]
    files = [study.parent / "run" / name for name in (*row["slice_paths"], row["picture_path"])]
    first = [file.read_bytes() for file in files]
    measure_item(item(study), how(study, slices=True))
    assert [file.read_bytes() for file in files] == first


def test_visit_that_is_only_shown(study: Path) -> None:
    labels = measure_item(item(study, measure=False), how(study, slices=True))
    assert (labels["measures"], labels["segmenter"], len(labels["slice_paths"])) == ([], None, 5)
    alone = measure_item(item(study, measure=False, segmentation_path=None), how(study, slices=True))
    assert (alone["reason"], len(alone["slice_paths"])) == (None, 5)
    truncate(study / "dseg.nii.gz")
    by_position = measure_item(item(study, measure=False), how(study, slices=True))
    assert by_position["reason"] is None and "segmentation: its gzip is cut off" in by_position["warnings"]
    truncate(study / "T1w.nii.gz")
    broken = measure_item(item(study, measure=False), how(study, slices=True))
    assert (broken["reason"], broken["slice_paths"]) == ("scan: its gzip is cut off", [])
    assert broken["picture_path"] is None and alone["picture_path"] == "slices/000012-views.png"


def test_broken_scan_leaves_the_measures(study: Path) -> None:
    truncate(study / "T1w.nii.gz")
    row = measure_item(item(study), how(study, slices=True))
    assert (row["reason"], row["warnings"], row["slice_paths"]) == (None, ["scan: its gzip is cut off"], [])
    assert set(REGIONS) <= set(values(row))
    unopened = measure_item(item(study), how(study, faces=False))
    assert unopened["warnings"] == []


def test_scan_of_another_grid_is_shown_by_position(study: Path, phantom: Phantom) -> None:
    shifted = phantom.affine + np.array([[0, 0, 0, 0.2]] + [[0.0] * 4] * 3)
    nib.save(nib.Nifti1Image(phantom.t1, shifted), study / "T1w.nii.gz")
    row = measure_item(item(study), how(study, slices=True))
    assert row["warnings"] == [OTHER_GRID] and len(row["slice_paths"]) == 5


def test_face_is_a_warning(study: Path, phantom: Phantom) -> None:
    t1 = phantom.t1.copy()
    t1[26:38, 60:, 10:20] = 180  # a nose
    write(study / "T1w.nii.gz", t1, phantom)
    assert measure_item(item(study), how(study))["warnings"] == [FACIAL_TISSUE]


def refused(study: Path, phantom: Phantom, kind: str) -> None:
    file = study / "dseg.nii.gz"
    if kind == "truncated":
        truncate(file)
    elif kind == "4-D":
        write(file, np.stack([phantom.labels] * 2, axis=-1), phantom)
    elif kind == "link":
        file.rename(study.parent / "elsewhere.nii.gz")
        file.symlink_to(study.parent / "elsewhere.nii.gz")
    elif kind == "missing":
        file.unlink()
    elif kind == "mask":
        write(file, (phantom.labels > 0).astype(np.uint8) * 200, phantom)
    elif kind == "small head":
        nib.save(nib.Nifti1Image(phantom.labels, phantom.affine * 0.7), file)
    else:
        write(file, phantom.labels + np.float32(0.25), phantom)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "its gzip is cut off"),
        ("4-D", "4-D: not one volume"),
        ("link", "outside the folder of the cohort"),
        ("missing", "no such file"),
        ("mask", "holds none of the regions"),
        ("small head", "intracranial volume outside 0.9 to 2.2 L"),
        ("no labels", "labels are not whole numbers"),
    ],
)
def test_label_map_that_cannot_be_used(study: Path, phantom: Phantom, kind: str, reason: str) -> None:
    refused(study, phantom, kind)
    row = measure_item(item(study), how(study, slices=True))
    assert row["reason"] == f"segmentation: {reason}"
    assert (row["measures"], row["warnings"], row["slice_paths"]) == ([], [], [])


def test_any_other_failure_is_a_reason_without_its_message(study: Path) -> None:
    row = measure_item(item(study, number="../../secret"), how(study, slices=True))
    assert row["reason"] == "failed with RunError"


def test_batch_has_a_row_for_each_item_of_exactly_the_schema(study: Path) -> None:
    missing = item(study, number="000013", segmentation_path=str(study / "no.nii.gz"))
    measured = measure_batch(pa.Table.from_pylist([missing, item(study)], schema=ITEMS), how(study))
    assert measured.schema == MEASURED
    assert measured.column("number").to_pylist() == ["000013", "000012"]
    assert measured.column("reason").to_pylist() == ["segmentation: no such file", None]


def test_tables_go_before_the_label_map(study: Path, phantom: Phantom) -> None:
    folder = freesurfer(study, phantom)
    one = item(study, segmentation_path=str(folder / "mri/aparc+aseg.mgz"), image_path=None, segmenter="freesurfer")
    row = measure_item(one, how(study))
    assert (row["reason"], row["segmenter"]) == (None, "freesurfer-7.4")
    assert values(row)["hippocampus"] == pytest.approx(4333.5 + 4328.9)
    assert values(row)["icv"] == pytest.approx(1420434.160521)
    assert 0 < values(row)["temporal_horn_roundness"] < 1, "from the label map"
    assert "occipital" in values(row)
    # The tables alone.
    by_table = measure_item({**one, "segmentation_path": str(folder / "stats/aseg.stats")}, how(study))
    assert values(by_table)["hippocampus"] == values(row)["hippocampus"]
    assert [text.split(":")[0] for text in by_table["warnings"]] == [
        "temporal_horn_roundness",
        "frontal_horn_roundness",
    ]
    # A label map that is broken takes nothing from the tables; tables that are, are not replaced by other numbers.
    truncate(folder / "mri/aparc+aseg.mgz")
    broken = measure_item(one, how(study))
    assert values(broken)["hippocampus"] == values(row)["hippocampus"]
    assert broken["warnings"][0] == "segmentation: its gzip is cut off"
    (folder / "stats/aseg.stats").write_text(aseg()[:-200], encoding="utf-8")
    assert measure_item(one, how(study))["reason"] == "stats: the table is cut off"


def test_counted_voxels_are_another_segmenter_than_tables(study: Path, phantom: Phantom) -> None:
    folder = freesurfer(study, phantom)
    shutil.rmtree(folder / "stats")
    one = item(study, segmentation_path=str(folder / "mri/aparc+aseg.mgz"), segmenter="freesurfer-7.4")
    row = measure_item(one, how(study))
    assert row["segmenter"] == "freesurfer-7.4+voxels"
    assert values(row)["hippocampus"] == pytest.approx(phantom.volumes["hippocampus"], rel=1e-6)
    assert [counted_segmenter(name) for name in (None, "own-2", "synthseg-2.0", "synthseg-2.0+voxels")] == [
        None,
        "own-2",
        "synthseg-2.0+voxels",
        "synthseg-2.0+voxels",
    ]


def test_tables_are_those_of_the_same_segmentation(tmp_path: Path) -> None:
    (tmp_path / "mri").mkdir()
    (tmp_path / "stats").mkdir()
    label_map = tmp_path / "mri/aparc+aseg.mgz"
    (tmp_path / "stats/lh.aparc.stats").touch()
    assert stats_tables(label_map) == (), "the cortex alone is not enough"
    (tmp_path / "stats/aseg.stats").touch()
    expected = (tmp_path / "stats/aseg.stats", tmp_path / "stats/lh.aparc.stats")
    assert stats_tables(label_map) == expected == stats_tables(tmp_path / "stats/aseg.stats")
    assert stats_tables(tmp_path / "mri/synthseg.mgz") == ()
    assert stats_tables(tmp_path / "anat/aparc+aseg.mgz") == ()


def test_labels_of_another_scheme_in_freesurfers_numbers(study: Path, phantom: Phantom) -> None:
    assert freesurfer_labels(phantom.labels, FREESURFER) is phantom.labels
    own = LabelScheme({name: tuple(label + 3000 for label in labels) for name, labels in FREESURFER.ids.items()})
    moved = np.where(phantom.labels > 0, phantom.labels.astype(np.int32) + 3000, 0)
    np.testing.assert_array_equal(freesurfer_labels(moved, own), phantom.labels)
    plain = measure_item(item(study), how(study, slices=True))
    pictures = [(study.parent / "run" / name).read_bytes() for name in (*plain["slice_paths"], plain["picture_path"])]
    write(study / "dseg.nii.gz", moved, phantom)
    row = measure_item(item(study), how(study, slices=True, scheme=own))
    assert values(row) == values(plain)
    shown = [(study.parent / "run" / name).read_bytes() for name in (*row["slice_paths"], row["picture_path"])]
    assert shown == pictures


def test_same_grid(phantom: Phantom) -> None:
    zooms = (3.0, 3.0, 3.0)
    label_map = LabelMap(phantom.labels, phantom.affine, 27.0, zooms)
    assert same_grid(Volume(phantom.t1, phantom.affine + 1e-5, 27.0, zooms), label_map)
    assert not same_grid(Volume(phantom.t1[:-1], phantom.affine, 27.0, zooms), label_map)
    assert not same_grid(Volume(phantom.t1, phantom.affine * 1.01, 27.0, zooms), label_map)
