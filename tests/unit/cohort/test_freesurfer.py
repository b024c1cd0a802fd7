"""FreeSurfer subjects directories: whose folder is whose, what is no person, and what cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clinical_reasoner.cohort.columns import TOO_MANY_CELLS, StudyFileError
from clinical_reasoner.cohort.freesurfer import read_freesurfer, segmenter_of
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import RejectedRow

STAMP_6 = "freesurfer-Linux-centos6_x86_64-stable-pub-v6.0.0-2beb96c"
FILES = ("mri/aparc+aseg.mgz", "mri/T1.mgz", "mri/orig.mgz", "stats/aseg.stats")
TEMPLATES = (
    *("fsaverage", "fsaverage5", "fsaverage_sym", "lh.EC_average", "rh.EC_average", "V1_average", "cvs_avg35_inMNI152"),
    *("bert", "bert2", "bert_copy", "Bert-copy-2", "bert.backup", "logs", "log", ".cache"),
)
NOBODY = "neither mri/aparc+aseg.mgz nor stats/aseg.stats"


@pytest.fixture
def subjects(tmp_path: Path) -> Path:
    folder = tmp_path / "subjects"
    folder.mkdir()
    return folder


def run(subjects: Path, name: str, files: tuple[str, ...] = FILES, stamp: str = STAMP_6) -> Path:
    folder = subjects / name
    for file in (*files, "scripts/build-stamp.txt"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    (folder / "scripts/build-stamp.txt").write_text(stamp + "\n", encoding="utf-8")
    return folder


def read(subjects: Path, *lines: str) -> tuple[list[Visit], list[tuple[str, str]]]:
    file = None
    if lines:
        file = subjects.parent / "covariates.csv"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = list(read_freesurfer(subjects, file))
    rejected = [(row.source, row.reason) for row in rows if isinstance(row, RejectedRow)]
    return [row for row in rows if isinstance(row, Visit)], rejected


def test_folders_without_covariates(subjects: Path) -> None:
    folder = run(subjects, "p1")
    run(subjects, "sub-01_ses-M06")
    visits, rejected = read(subjects)
    assert rejected == []
    assert visits == [
        Visit(
            patient_id="p1",
            visit_id="bl",
            cohort="freesurfer",
            segmenter="freesurfer-6.0",
            image_path=str(folder / "mri/T1.mgz"),
            segmentation_path=str(folder / "mri/aparc+aseg.mgz"),
            source="subjects: subject folder 1 by name",
        ),
        visits[1],
    ]
    assert (visits[1].patient_id, visits[1].visit_id, visits[1].years_from_baseline) == ("sub-01", "ses-M06", 0.5)


def test_label_map_or_stats_alone_are_enough(subjects: Path) -> None:
    run(subjects, "a", ("stats/aseg.stats",))
    run(subjects, "b", ("mri/aparc+aseg.mgz", "mri/orig.mgz"))
    (first, second), rejected = read(subjects)
    assert rejected == []
    assert (first.image_path, first.segmentation_path) == (None, str(subjects / "a/stats/aseg.stats"))
    assert (second.image_path or "").endswith("b/mri/orig.mgz")
    assert second.segmentation_path == str(subjects / "b/mri/aparc+aseg.mgz")


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_logs_and_copies_of_the_example_are_no_people(subjects: Path, name: str) -> None:
    run(subjects, name)
    (subjects / "FreeSurferColorLUT.txt").touch()
    assert read(subjects) == ([], [])


@pytest.mark.parametrize("name", ["bertha01", "logan", "p-fsaverage", "lobert"])
def test_people_whose_id_resembles_one(subjects: Path, name: str) -> None:
    run(subjects, name)
    (visit,), rejected = read(subjects)
    assert (visit.patient_id, rejected) == (name, [])


def test_template_that_is_a_link_out_of_the_folder_is_no_person(subjects: Path, tmp_path: Path) -> None:
    (subjects / "fsaverage").symlink_to(run(tmp_path, "install"))
    assert read(subjects) == ([], [])


def broken(subjects: Path, kind: str) -> None:
    folder = run(subjects, "secret-id", () if kind == "empty" else FILES)
    outside = run(subjects.parent, "elsewhere")
    if kind == "error":
        (folder / "scripts/recon-all.error").touch()
    elif kind == "running":
        (folder / "scripts/IsRunning.lh+rh").touch()
    elif kind == "base":
        (folder / "base-tps").touch()
    elif kind == "long":
        folder.rename(subjects / "secret-id.long.base")
    elif kind in ("file link", "dead link"):
        (folder / "mri/aparc+aseg.mgz").unlink()
        target = outside / "mri/aparc+aseg.mgz" if kind == "file link" else subjects / "gone.mgz"
        (folder / "mri/aparc+aseg.mgz").symlink_to(target)
    elif kind == "stats link":
        shutil.rmtree(folder / "mri")
        (folder / "stats/aseg.stats").unlink()
        (folder / "stats/aseg.stats").symlink_to(outside / "stats/aseg.stats")
    elif kind == "folder link":
        folder.rename(subjects.parent / "moved")
        folder.symlink_to(subjects.parent / "moved")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", NOBODY),
        ("error", "recon-all ended with an error"),
        ("running", "recon-all has not finished"),
        ("base", "a template of the longitudinal stream, not a visit"),
        ("long", "a folder of the longitudinal stream; the cross-sectional folder of the visit is used"),
        ("file link", "a file of the visit is outside the cohort folder, or a link that leaves it"),
        ("stats link", "a file of the visit is outside the cohort folder, or a link that leaves it"),
        ("folder link", "a file of the visit is outside the cohort folder, or a link that leaves it"),
        ("dead link", "a file of the visit is not there, or is a link to nothing; was it fetched?"),
    ],
)
def test_broken_folder_is_set_aside_and_not_named(subjects: Path, kind: str, reason: str) -> None:
    run(subjects, "a")
    broken(subjects, kind)
    run(subjects, "z")
    visits, rejected = read(subjects)
    assert [visit.patient_id for visit in visits] == ["a", "z"]
    assert rejected == [("subjects: subject folder 2 by name", reason)]


@pytest.mark.parametrize(
    ("stamp", "segmenter"),
    [
        (STAMP_6, "freesurfer-6.0"),
        ("freesurfer-Linux-centos4_x86_64-stable-pub-v5.3.0", "freesurfer-5.3"),
        ("freesurfer-linux-centos7_x86_64-7.3.2-20220804-6354275", "freesurfer-7.3"),
        ("freesurfer-darwin-macOS-7.4.1-20230614-7eb8460", "freesurfer-7.4"),
        ("freesurfer-linux-centos7_x86_64-dev-20190614-19d4a8c", "freesurfer"),
        ("", "freesurfer"),
        ("x" * 1_000_000, "freesurfer"),
    ],
)
def test_segmenter_from_the_build_stamp(subjects: Path, stamp: str, segmenter: str) -> None:
    assert segmenter_of(run(subjects, "a", stamp=stamp)) == segmenter


def test_segmenter_without_a_stamp(subjects: Path) -> None:
    assert segmenter_of(subjects) == "freesurfer"


def test_covariates_by_person_and_visit_never_by_visit_alone(subjects: Path) -> None:
    for name in ("A_m00", "A_m12", "B_m00"):
        run(subjects, name)
    lines = ["Subject,Visit,Age,Sex,MMSE,Diagnosis"]
    lines += ["B,m00,80,M,17,AD", "A,m12,71.5,F,28,MCI", "A,m00,70.5,F,30,CN"]
    visits, rejected = read(subjects, *lines)
    assert rejected == []
    assert [(one.patient_id, one.visit_id, one.age_years, one.sex, one.mmse, one.label) for one in visits] == [
        ("A", "m00", 70.5, "female", 30, "NC"),
        ("A", "m12", 71.5, "female", 28, "MCI"),
        ("B", "m00", 80.0, "male", 17, "AD"),
    ]
    assert [one.years_from_baseline for one in visits] == [0.0, 1.0, 0.0]
    assert visits[2].source == "covariates.csv:2" and visits[2].label_source == "diagnosis/dx"


def test_covariates_by_folder_name(subjects: Path) -> None:
    for name in ("x1", "x2", "sub-01_ses-2"):
        run(subjects, name)
    lines = ["fsid,participant_id,session_id,age", "x2,P,ses-2,72", "x1,P,ses-1,71", "sub-01_ses-2,,,60"]
    visits, rejected = read(subjects, *lines)
    assert rejected == []
    assert [(one.patient_id, one.visit_id, one.age_years) for one in visits] == [
        ("sub-01", "ses-2", 60.0),
        ("P", "ses-1", 71.0),
        ("P", "ses-2", 72.0),
    ]


def test_folder_of_several_possible_visits_is_none(subjects: Path) -> None:
    run(subjects, "A")
    run(subjects, "B")
    visits, rejected = read(subjects, "id,visit,age", "A,m00,70", "A,m12,71", "B,m12,66")
    assert [(one.patient_id, one.visit_id, one.age_years) for one in visits] == [("B", "m12", 66.0)]
    assert rejected == [
        ("subjects: subject folder 1 by name", "no row in the covariates table"),
        ("covariates.csv:2", "no subject folder"),
        ("covariates.csv:3", "no subject folder"),
    ]


def test_rows_and_folders_that_cannot_be_used_are_counted_once(subjects: Path) -> None:
    for name in ("a", "b", "c", "d"):
        run(subjects, name)
    broken_folder = run(subjects, "e", ())
    assert broken_folder.is_dir()
    lines = ["id,age,sex,mmse", "a,70,F,29", "a,70,F,29", "b,old,M,20", "c,70,,31", "e,60,F,30", "f,60,F,30", ",1,F,3"]
    visits, rejected = read(subjects, *lines)
    assert [one.patient_id for one in visits] == ["a"]
    assert sorted(rejected) == [
        ("covariates.csv:3", "the same subject folder as an earlier row"),
        ("covariates.csv:4", "age_years is not a number"),
        ("covariates.csv:5", "mmse is outside 0 to 30"),
        ("covariates.csv:6", NOBODY),
        ("covariates.csv:7", "no subject folder"),
        ("covariates.csv:8", "the person and the folder are empty"),
        ("subjects: subject folder 4 by name", "no row in the covariates table"),
    ]


def test_row_with_more_cells_than_columns_is_set_aside(subjects: Path) -> None:
    run(subjects, "a")
    visits, rejected = read(subjects, "id,mmse,age", "a,5,29,70", "b,28,70,")
    assert visits == []
    assert sorted(rejected) == [
        ("covariates.csv:2", TOO_MANY_CELLS),
        ("covariates.csv:3", "no subject folder"),
        ("subjects: subject folder 1 by name", "no row in the covariates table"),
    ]


def test_order_of_rows_and_folders_makes_no_difference_to_the_time_of_visits(subjects: Path) -> None:
    for name in ("P_a", "P_b", "P_c"):
        run(subjects, name)
    lines = ["P,a,82", "P,b,70", "P,c,75"]
    for rows in (lines, lines[::-1]):
        visits, rejected = read(subjects, "id,visit,age", *rows)
        assert rejected == []
        assert {one.visit_id: one.years_from_baseline for one in visits} == {"a": 12.0, "b": 0.0, "c": 5.0}


def test_two_folders_of_one_visit_and_a_person_with_two_sexes(subjects: Path) -> None:
    for name in ("x1", "x2", "x3"):
        run(subjects, name)
    visits, rejected = read(subjects, "folder,id,visit,sex", "x1,P,bl,F", "x2,P,bl,F", "x3,P,m06,M")
    assert [one.visit_id for one in visits] == ["bl"]
    assert rejected == [
        ("covariates.csv:3", "the same patient_id and visit_id as an earlier row"),
        ("covariates.csv:4", "sex differs from that of an earlier row of the same person"),
    ]


def test_what_cannot_be_read_as_a_whole(subjects: Path) -> None:
    run(subjects, "a")
    with pytest.raises(StudyFileError, match=r"covariates\.csv: no column that names the person or the folder"):
        read(subjects, "age,sex", "70,F")
    with pytest.raises(StudyFileError, match="no folder at"):
        list(read_freesurfer(subjects / "none"))
    with pytest.raises(StudyFileError, match="no file at"):
        list(read_freesurfer(subjects, subjects / "none.csv"))
