"""The files of a visit in a BIDS dataset: which scan and segmentation are used, and what their sidecars tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clinical_reasoner.cohort.bids import read_bids
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import RejectedRow

OUTSIDE = "a file of the visit is outside the cohort folder, or a link that leaves it"
GONE = "a file of the visit is not there, or is a link to nothing; was it fetched?"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def add(data: Path, name: str, content: str = "") -> Path:
    file = data / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def scan(data: Path, person: str, session: str = "", entities: str = "") -> Path:
    stem = f"{person}_{session}" if session else person
    return add(data, f"{person}/{session}/anat/{stem}{entities}_T1w.nii.gz")


def people(data: Path, *names: str) -> None:
    add(data, "participants.tsv", "\n".join(["participant_id", *names]) + "\n")


def read(data: Path) -> tuple[list[Visit], list[tuple[str, str]]]:
    rows = list(read_bids(data))
    rejected = [(row.source, row.reason) for row in rows if isinstance(row, RejectedRow)]
    return [row for row in rows if isinstance(row, Visit)], rejected


def test_one_of_several_scans_is_chosen_and_said(data: Path) -> None:
    people(data, "sub-01")
    for entities in ("_acq-b_run-1", "_acq-b", "_acq-a", "_part-phase", "_desc-x_y"):
        scan(data, "sub-01", "", entities)
    add(data, "sub-01/anat/sub-01_T2w.nii.gz")
    add(data, "sub-01/anat/sub-011_T1w.nii.gz")
    (visit,), _ = read(data)
    assert visit.image_path == str(data / "sub-01/anat/sub-01_acq-a_T1w.nii.gz")
    assert visit.warnings == ("one of 3 T1-weighted scans of the visit",)


@pytest.mark.parametrize(
    ("own", "dataset", "expected"),
    [
        ('{"MagneticFieldStrength": 3}', "", 3.0),
        ("", '{"MagneticFieldStrength": 1.5}', 1.5),
        ('{"MagneticFieldStrength": 1.494}', '{"MagneticFieldStrength": 3}', 1.494),
        ('{"MagneticFieldStrength": 30000}', "", None),
        ('{"MagneticFieldStrength": "3T"}', "", None),
        ('{"MagneticFieldStrength": NaN}', "", None),
        ("[3]", "", None),
        ("[" * 100_000, "", None),
        ("{", "", None),
        (" " * 2_000_000 + '{"MagneticFieldStrength": 3}', "", None),
    ],
)
def test_field_strength_from_the_sidecar(data: Path, own: str, dataset: str, expected: float | None) -> None:
    people(data, "sub-01")
    scan(data, "sub-01")
    for name, content in (("sub-01/anat/sub-01_T1w.json", own), ("T1w.json", dataset)):
        if content:
            add(data, name, content)
    (visit,), rejected = read(data)
    assert rejected == [] and visit.field_strength_t == expected


def recon(data: Path, name: str, stamp: str = "freesurfer-linux-centos7_x86_64-7.3.2-20220804-6354275") -> Path:
    add(data, f"derivatives/freesurfer/{name}/scripts/build-stamp.txt", stamp)
    return add(data, f"derivatives/freesurfer/{name}/mri/aparc+aseg.mgz")


def test_freesurfer_of_a_visit(data: Path) -> None:
    people(data, "sub-01", "sub-02", "sub-03")
    scan(data, "sub-01")
    for session in ("ses-1", "ses-2"):
        scan(data, "sub-02", session)
    of_one = recon(data, "sub-01")
    recon(data, "sub-02")  # over both sessions, so of neither
    of_second = recon(data, "sub-02_ses-2")
    alone = recon(data, "sub-03_ses-9")
    visits, rejected = read(data)
    assert rejected == []
    assert [(one.visit_id, one.segmentation_path, one.segmenter) for one in visits] == [
        ("bl", str(of_one), "freesurfer-7.3"),
        ("ses-1", None, None),
        ("ses-2", str(of_second), "freesurfer-7.3"),
        ("ses-9", str(alone), "freesurfer-7.3"),
    ]
    assert visits[3].image_path is None


def test_freesurfer_of_the_only_session(data: Path) -> None:
    people(data, "sub-01")
    scan(data, "sub-01", "ses-1")
    path = recon(data, "sub-01")
    (visit,), _ = read(data)
    assert (visit.visit_id, visit.segmentation_path) == ("ses-1", str(path))


def test_label_maps_of_other_pipelines(data: Path) -> None:
    people(data, "sub-01")
    scan(data, "sub-01", "ses-1")
    folder = "derivatives/prep/sub-01/ses-1/anat/sub-01_ses-1"
    for entities in ("", "_space-MNI152NLin2009cAsym_desc-aparcaseg", "_desc-aseg"):
        add(data, f"{folder}{entities}_dseg.nii.gz")
    (visit,), _ = read(data)
    assert visit.segmentation_path == str(data / f"{folder}_desc-aseg_dseg.nii.gz")
    assert visit.segmenter == "prep"
    best = add(data, f"{folder}_space-T1w_desc-aparcaseg_dseg.nii.gz")
    made_by = {"GeneratedBy": [{"Name": "sMRIPrep X", "Version": "0.12.1"}]}
    add(data, "derivatives/prep/dataset_description.json", json.dumps(made_by))
    (visit,), _ = read(data)
    assert (visit.segmentation_path, visit.segmenter) == (str(best), "smriprep-x-0.12.1")


def test_freesurfer_goes_first(data: Path) -> None:
    people(data, "sub-01")
    scan(data, "sub-01")
    label_map = add(data, "derivatives/aaa/sub-01/anat/sub-01_dseg.nii.gz")
    assert read(data)[0][0].segmentation_path == str(label_map)
    path = recon(data, "sub-01")
    assert read(data)[0][0].segmentation_path == str(path)


def test_tables_of_freesurfer_alone_are_enough(data: Path) -> None:
    people(data, "sub-01", "sub-02")
    scan(data, "sub-01")
    recon(data, "sub-01").unlink()
    table = add(data, "derivatives/freesurfer/sub-01/stats/aseg.stats")
    other = add(data, "derivatives/freesurfer/sub-02/stats/aseg.stats")  # without mri/
    (visit, second), rejected = read(data)
    assert (rejected, visit.warnings, second.warnings) == ([], (), ())
    assert (visit.segmentation_path, visit.segmenter) == (str(table), "freesurfer-7.3")
    assert second.segmentation_path == str(other)
    table.unlink()
    (visit, _), _ = read(data)
    assert visit.warnings == ("FreeSurfer: neither mri/aparc+aseg.mgz nor stats/aseg.stats",)
    table.symlink_to(add(data.parent, "elsewhere.stats"))
    assert read(data)[1] == [("participants.tsv:2", OUTSIDE)]


def test_run_that_failed_leaves_the_scan_and_a_warning(data: Path) -> None:
    people(data, "sub-01")
    scan(data, "sub-01")
    recon(data, "sub-01")
    add(data, "derivatives/freesurfer/sub-01/scripts/recon-all.error")
    (visit,), rejected = read(data)
    assert rejected == [] and visit.segmentation_path is None
    assert visit.warnings == ("FreeSurfer: recon-all ended with an error",)


def link_scan(data: Path, target: Path) -> None:
    image = scan(data, "sub-01")
    image.unlink()
    image.symlink_to(target)


def link_label_map(data: Path, target: Path) -> None:
    scan(data, "sub-01")
    path = recon(data, "sub-01")
    path.unlink()
    path.symlink_to(target)


def link_folder(data: Path, target: Path) -> None:
    (data / "sub-01").symlink_to(target.parent)
    scan(target.parent.parent, target.parent.name)
    (target.parent / "anat" / f"{target.parent.name}_T1w.nii.gz").rename(target.parent / "anat/sub-01_T1w.nii.gz")


@pytest.mark.parametrize("link", [link_scan, link_label_map, link_folder])
def test_link_that_leaves_the_folder(data: Path, tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    people(data, "sub-01", "sub-02")
    scan(data, "sub-02")
    link(data, add(tmp_path, "elsewhere/secret.nii.gz"))
    visits, rejected = read(data)
    assert [one.patient_id for one in visits] == ["sub-02"]
    assert rejected == [("participants.tsv:2", OUTSIDE)]


def test_link_within_the_folder_is_followed_and_one_to_nothing_is_not(data: Path) -> None:
    people(data, "sub-01")
    link_scan(data, add(data, ".git/annex/objects/x.nii.gz"))
    assert len(read(data)[0]) == 1
    (data / ".git/annex/objects/x.nii.gz").unlink()
    assert read(data) == ([], [("participants.tsv:2", GONE)])
