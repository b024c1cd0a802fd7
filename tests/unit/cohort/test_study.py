"""From visits to patients: labels, choice of visits, SynthSeg's volumes, ids and ages, splits, and what a study's files
are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.deidentify import KEY_VARIABLE, pseudonym
from clinical_reasoner.cohort.phantom_mark import mark_phantoms
from clinical_reasoner.cohort.readers import read_visits
from clinical_reasoner.cohort.splits import split_of
from clinical_reasoner.cohort.study import study_source
from clinical_reasoner.cohort.study_files import study_fingerprint
from clinical_reasoner.cohort.study_volumes import NO_SESSION, NO_VISIT, TWO_SCANS, join_volumes
from clinical_reasoner.cohort.visits import Visit, measure
from clinical_reasoner.config.cohort import DeidentifyConfig, StudyCohort
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import PatientRow, RejectedRow, Split
from clinical_reasoner.task import DiagnosisTask
from tests.unit.cohort.fixtures.collected import read_study
from tests.unit.cohort.fixtures.studies import NOT_BASELINE, STUDIES, Invented
from tests.unit.cohort.fixtures.synthseg import PLAIN, line, table

ROOT = Path(__file__).parents[3]
KEY = "0123456789abcdef" * 2
SHARES: dict[Split, float] = {"train": 0.6, "validation": 0.1, "test": 0.3}
HEADER = "Subject ID,MRI ID,MR Delay,M/F,Age,EDUC,MMSE,CDR,eTIV,nWBV"
FIRST = "OAS2_9001,OAS2_9001_MR1,0,F,88,12,29,0,1344,0.743"
LATER = "OAS2_9001,OAS2_9001_MR3,731,F,90,12,24,0.5,1346,0.731"
OTHER = "OAS2_9002,OAS2_9002_MR1,0,M,70,16,20,1,1500,0.7"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def cohort_of(path: Path, kind: str = "oasis2", *overrides: str) -> StudyCohort:
    config = load_config(
        CohortRunConfig, ROOT / f"configs/cohort/{kind}.yaml", [f"cohort.path={path}", "run.path=x", *overrides]
    )
    assert isinstance(config.cohort, StudyCohort)
    return config.cohort


def oasis2(folder: Path, *lines: str, overrides: tuple[str, ...] = ()) -> StudyCohort:
    file = folder / "oasis.csv"
    file.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return cohort_of(file, "oasis2", *overrides)


def invented(folder: Path, kind: str) -> tuple[StudyCohort, Invented]:
    (folder / "study").mkdir()
    study = STUDIES[kind](folder / "study")
    return cohort_of(study.path, kind, *study.overrides), study


@pytest.mark.parametrize("kind", STUDIES)
def test_every_row_of_a_reader_is_a_patient_or_rejected(tmp_path: Path, kind: str, task: DiagnosisTask) -> None:
    cohort, study = invented(tmp_path, kind)
    patients, rejected = read_study(cohort, task, SHARES)
    assert Counter(row.reason for row in rejected) == study.reasons
    of_reader = list(read_visits(cohort))
    of_volumes = study.reasons[NO_VISIT]
    assert len(patients) + len(rejected) == len(of_reader) + of_volumes
    assert len(patients) == 14 and {patient.cohort for patient in patients} == {cohort.name}
    assert {patient.label for patient in patients} == set(task.label_names)
    assert not any(id_ in row.model_dump_json() for row in rejected for id_ in study.ids)
    for patient in patients:
        hidden = patient.model_copy(update={"image_path": None, "segmentation_path": None}).model_dump_json()
        assert not any(id_ in hidden for id_ in study.ids)
        assert ((patient.image_path or patient.segmentation_path) is not None) == study.holds_paths
    assert max(patient.age_years or 0 for patient in patients) == 90
    (oldest,) = [patient for patient in patients if patient.age_years == 90]
    assert oldest.at_least == ("age_years",)


def test_the_chosen_visit_and_why_the_others_are_not_used(tmp_path: Path, task: DiagnosisTask) -> None:
    lines = (LATER, FIRST, OTHER)
    for choice, ages, place in (("baseline", [88.0], "oasis.csv:2"), ("last", [90.0], "oasis.csv:3")):
        cohort = oasis2(tmp_path, *lines, overrides=(f"cohort.visits={choice}", "cohort.deidentify.ids=keep"))
        patients, rejected = read_study(cohort, task, SHARES)
        assert [patient.age_years for patient in patients if patient.patient_id == "OAS2_9001"] == ages
        reason = f"not the {choice} visit (cohort.visits={choice})"
        assert rejected == [RejectedRow(source=place, stage="patients", reason=reason)]
    patients, rejected = read_study(oasis2(tmp_path, *lines, overrides=("cohort.visits=all",)), task, SHARES)
    assert len(patients) == 3 and rejected == []
    assert [one.age_years for one in patients if one.sex == "female"] == [88.0, 90.0], "in the order of time"


def test_label_that_the_task_does_not_have_is_set_aside_before_visits_are_chosen(
    tmp_path: Path, task: DiagnosisTask
) -> None:
    raw = task.model_dump()
    raw["labels"] = [label for label in raw["labels"] if label["name"] != "NC"]
    two = DiagnosisTask.model_validate(raw | {"controls": None})
    patients, rejected = read_study(oasis2(tmp_path, FIRST, LATER, OTHER), two, SHARES)
    assert sorted(patient.label or "" for patient in patients) == ["AD", "MCI"]
    assert [(row.source, row.reason) for row in rejected] == [("oasis.csv:2", "label is none of AD, MCI")]


def test_ids_become_pseudonyms_and_people_are_split_by_them(tmp_path: Path, task: DiagnosisTask) -> None:
    cohort = oasis2(tmp_path, FIRST, LATER, OTHER, overrides=("cohort.visits=all", "cohort.seed=4"))
    patients, _ = read_study(cohort, task, SHARES)
    hidden = {pseudonym(id_, KEY.encode()) for id_ in ("OAS2_9001", "OAS2_9002")}
    assert {patient.patient_id for patient in patients} == hidden
    assert [patient.patient_id for patient in patients] == sorted(patient.patient_id for patient in patients)
    assert all(patient.split == split_of(patient.patient_id, SHARES, 4) for patient in patients)
    reordered = oasis2(tmp_path, OTHER, LATER, FIRST, overrides=("cohort.visits=all", "cohort.seed=4"))
    assert read_study(reordered, task, SHARES)[0] == patients
    kept, _ = read_study(oasis2(tmp_path, FIRST, OTHER, overrides=("cohort.deidentify.ids=keep",)), task, SHARES)
    assert [(one.patient_id, one.visit_id) for one in kept] == [("OAS2_9001", "MR1"), ("OAS2_9002", "MR1")]
    assert all(one.split == split_of(one.patient_id, SHARES, 0) for one in kept)


def test_people_of_a_dataset_of_phantoms_are_called_synthetic(tmp_path: Path, task: DiagnosisTask) -> None:
    cohort, study = invented(tmp_path, "bids")
    mark_phantoms(study.path)
    patients, _ = read_study(cohort, task, SHARES)
    assert {patient.cohort for patient in patients} == {"synthetic-bids"}


def test_rows_are_patient_rows_without_what_only_a_visit_has(tmp_path: Path, task: DiagnosisTask) -> None:
    patients, _ = read_study(oasis2(tmp_path, FIRST), task, SHARES)
    assert [type(patient) for patient in patients] == [PatientRow]


@pytest.mark.parametrize("ids", ["pseudonym", "keep"])
@pytest.mark.parametrize(
    ("age", "ages", "shown", "at_least"),
    [
        ("89", True, 89.0, ()),
        ("90", True, 90.0, ("age_years",)),
        ("97", True, 90.0, ("age_years",)),
        ("97", False, 97.0, ()),
        ("", True, None, ()),
    ],
)
def test_ages_as_configured(
    tmp_path: Path, task: DiagnosisTask, ids: str, age: str, ages: bool, shown: float | None, at_least: tuple[str, ...]
) -> None:
    overrides = (f"cohort.deidentify.ids={ids}", f"cohort.deidentify.ages={str(ages).lower()}")
    cohort = oasis2(tmp_path, FIRST.replace(",88,", f",{age},"), overrides=overrides)
    (patient,), _ = read_study(cohort, task, SHARES)
    assert (patient.age_years, patient.at_least) == (shown, at_least)


def test_age_that_the_file_gives_as_a_lower_bound_stays_one(tmp_path: Path, task: DiagnosisTask) -> None:
    for text, shown in (("89+", 89.0), ("90+", 90.0)):
        (tmp_path / "participants.tsv").write_text(
            f"participant_id\tage\tdiagnosis\nsub-1\t{text}\tAD\n", encoding="utf-8"
        )
        (tmp_path / "sub-1/anat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sub-1/anat/sub-1_T1w.nii.gz").touch()
        (patient,), _ = read_study(cohort_of(tmp_path, "bids"), task, SHARES)
        assert (patient.age_years, patient.at_least) == (shown, ("age_years",))


def test_paths_stay_where_a_file_is_still_to_be_opened(tmp_path: Path, task: DiagnosisTask) -> None:
    cohort, _ = invented(tmp_path, "synthseg")
    for pictures in (False, True):
        patients, _ = read_study(cohort, task, SHARES, pictures)
        assert {patient.image_path is not None for patient in patients} == {pictures}
    kept = cohort.model_copy(update={"deidentify": DeidentifyConfig(ids="keep")})
    assert all(patient.image_path for patient in read_study(kept, task, SHARES)[0])


def test_key_is_needed_and_may_lie_in_a_file(
    tmp_path: Path, task: DiagnosisTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study").mkdir()
    cohort = oasis2(tmp_path / "study", FIRST)
    patients, _ = read_study(cohort, task, SHARES)
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(UserError, match=f"{KEY_VARIABLE}: no key"):
        read_study(cohort, task, SHARES)
    (tmp_path / "id.key").write_text(KEY, encoding="utf-8")
    by_file = oasis2(tmp_path / "study", FIRST, overrides=(f"cohort.deidentify.key_file={tmp_path / 'id.key'}",))
    assert read_study(by_file, task, SHARES)[0] == patients
    read_study(oasis2(tmp_path, FIRST, overrides=("cohort.deidentify.ids=keep",)), task, SHARES)


def visit(patient_id: str, visit_id: str = "bl", **fields: object) -> Visit:
    return Visit.model_validate(
        {"patient_id": patient_id, "visit_id": visit_id, "cohort": "c", "source": "f:2"} | fields
    )


def joined(folder: Path, visits: list[Visit], *names: str) -> tuple[list[int], list[str]]:
    """Places of the visits that got volumes, and the reasons of the rows that are not used."""
    file = table(folder, PLAIN, *(line(PLAIN, name) for name in names))
    found, rejected = join_volumes(visits, file)
    return [index for index, one in enumerate(found) if one.segmenter == "synthseg"], [row.reason for row in rejected]


@pytest.mark.parametrize(
    ("patient_id", "visit_id", "name"),
    [
        ("sub-01", "ses-M06", "sub-01_ses-M06_T1w"),
        ("sub-01", "ses-M06", "/in/sub-01_ses-M06_acq-x_run-1_T1w.nii.gz"),
        ("sub-01", "M06", "sub-01_ses-M06_T1w"),
        ("01", "M06", "sub-01_ses-M06_T1w"),
        ("01", "M06", "01_M06"),
        ("OAS1_0001", "MR1", "OAS1_0001_MR1_mpr-1_anon"),
        ("sub-01", "bl", "sub-01_T1w"),
        ("sub-01", "bl", "sub-01_run-1_T1w"),
        ("p_1", "bl", "p_1"),
    ],
)
def test_volumes_by_subject_and_session(tmp_path: Path, patient_id: str, visit_id: str, name: str) -> None:
    # The other person has a visit of the same name.
    visits = [visit("sub-02", visit_id), visit(patient_id, visit_id)]
    assert joined(tmp_path, visits, name) == ([1], [])


@pytest.mark.parametrize(
    ("names", "places", "reasons"),
    [
        (["sub-01_ses-M12_T1w"], [], [NO_VISIT]),
        (["sub-01_T1w"], [], [NO_SESSION]),
        (["sub-01_ses-M00_T1w", "sub-01_ses-M00_run-2_T1w"], [0], [TWO_SCANS]),
        (["sub-02_ses-M00_T1w"], [2], []),
        (["sub-02_ses-M06_T1w"], [], [NO_VISIT]),
        (["sub-02_T1w"], [2], []),
        (["sub-011_ses-M00_T1w"], [], [NO_VISIT]),
        (["sub-0"], [], [NO_VISIT]),
        (["M00"], [], [NO_VISIT]),
    ],
)
def test_volumes_of_another_session_or_person_are_never_joined(
    tmp_path: Path, names: list[str], places: list[int], reasons: list[str]
) -> None:
    visits = [visit("sub-01", "ses-M00"), visit("sub-01", "ses-M06"), visit("sub-02", "ses-M00")]
    assert joined(tmp_path, visits, *names) == (places, reasons)


def test_rescan_is_not_the_visit_that_the_study_has(tmp_path: Path) -> None:
    assert joined(tmp_path, [visit("OAS1_0001", "MR1")], "OAS1_0001_MR2_mpr-1") == ([], [NO_VISIT])


def test_volumes_of_two_segmenters_are_never_in_one_visit(tmp_path: Path) -> None:
    own = (measure("hippocampus", 6000.0), measure("wm_hypointensities", 900.0), measure("mta", 2.0, "rating"))
    visits = [visit(id_, measures=own, segmenter="freesurfer-6.0") for id_ in ("a", "b")]
    (first, second), _ = join_volumes(visits, table(tmp_path, PLAIN, line(PLAIN, "a")))
    names = [one.name for one in first.measures]
    assert "wm_hypointensities" not in names and names.count("hippocampus") == 1 and "mta" in names
    assert (first.segmenter, second) == ("synthseg", visits[1])


def test_volumes_of_a_visit_that_is_not_chosen_count_with_it(tmp_path: Path, task: DiagnosisTask) -> None:
    file = table(tmp_path, PLAIN, *(line(PLAIN, name) for name in ("OAS2_9001_MR1", "OAS2_9001_MR3", "x")))
    cohort = oasis2(tmp_path, FIRST, LATER, overrides=(f"cohort.volumes={file}",))
    (patient,), rejected = read_study(cohort, task, SHARES)
    assert patient.segmenter == "synthseg"
    assert [row.reason for row in rejected] == [NO_VISIT, NOT_BASELINE]


def test_fingerprint_follows_the_content_of_tables_and_the_size_of_images(tmp_path: Path) -> None:
    cohort, study = invented(tmp_path, "synthseg")
    first = study_fingerprint(cohort)
    assert first == study_fingerprint(cohort)
    image = study.path / "sub-9101/anat/sub-9101_T1w.nii.gz"
    changes: list[Callable[[], object]] = [
        lambda: edit(study.path / "participants.tsv", "\tF\t", "\tM\t"),
        lambda: image.write_bytes(image.read_bytes() + b"x"),
        lambda: image.rename(image.with_name("sub-9101_run-1_T1w.nii.gz")),
        lambda: edit(Path(cohort.volumes or ""), "1000", "1001"),
        lambda: (study.path / "T1w.json").write_text('{"MagneticFieldStrength": 3}', encoding="utf-8"),
    ]
    seen = {first}
    for change in changes:
        change()
        seen.add(study_fingerprint(cohort))
    assert len(seen) == 1 + len(changes)
    (study.path / "notes.docx").touch()
    (study.path / ".git").mkdir()
    (study.path / ".git/index.csv").touch()
    assert study_fingerprint(cohort) in seen


def edit(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


def test_fingerprint_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "data"
    (outside / "sub-1").mkdir(parents=True)
    (outside / "secret.csv").write_text("a", encoding="utf-8")
    folder.mkdir()
    cohort = cohort_of(folder, "bids")
    before = study_fingerprint(cohort)
    for name in ("secret.csv", "sub-1", "gone.csv"):
        os.symlink(outside / name, folder / name)
    os.symlink(folder / "loop.csv", folder / "loop.csv")
    with_links = study_fingerprint(cohort)
    assert with_links != before
    (outside / "secret.csv").write_text("b", encoding="utf-8")
    (outside / "sub-1/new.csv").write_text("b", encoding="utf-8")
    assert study_fingerprint(cohort) == with_links
    (folder / "own.csv").write_text("1", encoding="utf-8")
    os.symlink(folder / "own.csv", folder / "inner.csv")
    inner = study_fingerprint(cohort)
    (folder / "own.csv").write_text("2", encoding="utf-8")
    assert study_fingerprint(cohort) != inner


def test_scans_beside_a_mapped_table_count(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("Case,Scan\na,a.nii\n", encoding="utf-8")
    (tmp_path / "a.nii").write_text("1", encoding="utf-8")
    mapping = {"patient_id": {"columns": ["Case"]}, "image_path": {"columns": ["Scan"]}}
    cohort = StudyCohort.model_validate(
        {"kind": "mapped", "path": str(tmp_path / "table.csv"), "name": "x", "mapping": mapping}
    )
    before = study_fingerprint(cohort)
    (tmp_path / "a.nii").write_text("12", encoding="utf-8")
    assert study_fingerprint(cohort) != before


def test_another_key_is_another_source_and_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = oasis2(tmp_path, FIRST)
    first = study_source(cohort)
    monkeypatch.setenv(KEY_VARIABLE, KEY[::-1])
    assert study_source(cohort) != first and KEY not in str(first)


@pytest.mark.parametrize("path", ["gs://bucket/adni", "/nowhere/adni"])
def test_path_that_is_none(path: str, task: DiagnosisTask) -> None:
    with pytest.raises(StudyFileError, match=path):
        study_fingerprint(cohort_of(Path("x")).model_copy(update={"path": path}))
    with pytest.raises(StudyFileError, match=path):
        read_study(cohort_of(Path("x"), "adni", f"cohort.path={path}"), task, SHARES)
