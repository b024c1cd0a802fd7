"""ADNIMERGE with FreeSurfer tables: what a row becomes, what is joined to it, and why a row is set aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.adni import NO_ICV, read_adni
from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.visits import Visit, choose_visits
from clinical_reasoner.records import Measure, RejectedRow
from tests.unit.cohort.fixtures.adni import LATER, ROW, SCAN, merged, write


def read(folder: Path) -> tuple[list[Visit], list[RejectedRow]]:
    out = list(read_adni(folder))
    return [one for one in out if isinstance(one, Visit)], [one for one in out if isinstance(one, RejectedRow)]


def only(folder: Path) -> Visit:
    (visit,), _ = read(folder)
    return visit


def test_a_full_row(tmp_path: Path) -> None:
    assert only(merged(tmp_path, {})) == Visit(
        patient_id="ADNI-0295",
        visit_id="bl",
        cohort="ADNI",
        label="NC",
        label_source="DX",
        age_years=84.8,
        sex="male",
        education_years=18,
        marital_status="married",
        mmse=28,
        apoe4_copies=1,
        measures=tuple(
            Measure(name=name, value=value, unit="mm3")
            for name, value in (("hippocampus", 7000), ("entorhinal", 3500), ("fusiform", 17000), ("icv", 1600000))
        ),
        segmenter="freesurfer-4.3",
        field_strength_t=1.5,
        source="ADNIMERGE.csv:2",
    )


def test_order_and_case_of_the_columns_do_not_matter(tmp_path: Path) -> None:
    expected = only(merged(tmp_path, {}))
    turned = {name.lower().replace("_", "."): ROW[name] for name in reversed(ROW) if name != "update_stamp"}
    assert only(write(tmp_path, "ADNIMERGE.csv", turned)) == expected


@pytest.mark.parametrize("missing", ["", "NA", "-4", "-1", "n/a"])
def test_every_missing_code_is_unknown(tmp_path: Path, missing: str) -> None:
    kept = {"RID", "VISCODE", "DX"}
    visit = only(merged(tmp_path, {name: missing for name in ROW if name not in kept}))
    unknown = Visit(
        patient_id="ADNI-0295", visit_id="bl", cohort="ADNI", label="NC", label_source="DX", source="ADNIMERGE.csv:2"
    )
    assert visit == unknown


def test_a_score_of_zero_is_a_score(tmp_path: Path) -> None:
    visit = only(merged(tmp_path, {"MMSE": "0", "APOE4": "0", "PTEDUCAT": "0"}))
    assert (visit.mmse, visit.apoe4_copies, visit.education_years) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Widowed", "widowed"),
        ("Divorced", "divorced"),
        ("Never married", "never_married"),
        ("Unknown", None),
        ("6", None),
        ("4", "never_married"),
    ],
)
def test_marital_status(tmp_path: Path, text: str, status: str | None) -> None:
    assert only(merged(tmp_path, {"PTMARRY": text})).marital_status == status


@pytest.mark.parametrize(
    ("dx", "label"),
    [
        ("CN", "NC"),
        ("NL", "NC"),
        ("MCI", "MCI"),
        ("Dementia", "AD"),
        ("NL to MCI", "MCI"),
        ("MCI to Dementia", "AD"),
        ("MCI to NL", "NC"),
        ("Dementia to MCI", "MCI"),
    ],
)
def test_the_diagnosis_is_that_of_the_visit(tmp_path: Path, dx: str, label: str) -> None:
    visit = only(merged(tmp_path, LATER | {"DX": dx, "DX_bl": "LMCI"}))
    assert (visit.label, visit.label_source) == (label, "DX")


@pytest.mark.parametrize(
    ("group", "label"), [("CN", "NC"), ("SMC", "NC"), ("EMCI", "MCI"), ("LMCI", "MCI"), ("AD", "AD")]
)
def test_the_group_at_enrolment_stands_in_at_baseline_alone(tmp_path: Path, group: str, label: str) -> None:
    lost = {"DX": "", "DX_bl": group}
    (visit,), (rejected,) = read(merged(tmp_path, lost, LATER | lost))
    assert (visit.visit_id, visit.label, visit.label_source) == ("bl", label, "DX_bl")
    assert (rejected.source, rejected.reason) == ("ADNIMERGE.csv:3", "no diagnosis of this visit")


@pytest.mark.parametrize("text", ["SMC", "EMCI", "LMCI", "AD", "Other"])
def test_groups_at_enrolment_are_no_diagnoses_of_a_visit(tmp_path: Path, text: str) -> None:
    visits, (rejected,) = read(merged(tmp_path, {"DX": text}))
    assert visits == [] and rejected.reason.startswith("DX has an unknown code; known are CN")


def test_age_is_that_at_the_visit(tmp_path: Path) -> None:
    visits, _ = read(merged(tmp_path, LATER, {}))
    assert [(visit.visit_id, visit.age_years) for visit in visits] == [("m12", 85.8), ("bl", 84.8)]
    assert [visit.years_from_baseline for visit in visits] == [0.999316, 0]
    assert [visit.visit_id for visit in choose_visits(visits, "last")] == ["m12"]


@pytest.mark.parametrize(
    ("rows", "without", "age", "years"),
    [
        ([LATER], ("Years_bl",), 85.8, 365 / 365.25),
        ([{}, LATER], ("Years_bl", "EXAMDATE_bl"), 85.8, 365 / 365.25),
        ([LATER], ("Years_bl", "EXAMDATE_bl"), None, 1.0),
        ([LATER | {"EXAMDATE": ""}], ("Years_bl",), None, 1.0),
        ([LATER | {"AGE": ""}], (), None, 0.999316),
    ],
)
def test_age_without_the_time_since_baseline(
    tmp_path: Path, rows: list[dict[str, str]], without: tuple[str, ...], age: float | None, years: float
) -> None:
    visit = read(merged(tmp_path, *rows, without=without))[0][-1]
    assert (visit.visit_id, visit.age_years) == ("m12", age)
    assert visit.years_from_baseline == pytest.approx(years)


def test_scans_are_joined_by_subject_and_visit(tmp_path: Path) -> None:
    other = {"RID": "296", "PTID": "002_S_0296", "PTGENDER": "Female"}
    merged(tmp_path, {}, LATER, other, other | LATER)
    write(tmp_path, "UCSFFSX_11_02_15.csv", SCAN, SCAN | {"RID": "296", "VISCODE": "m12", "ST29SV": "1000"})
    visits, rejected = read(tmp_path)
    assert rejected == []
    hippocampus = {
        (visit.patient_id, visit.visit_id): next(one.value for one in visit.measures if one.name == "hippocampus")
        for visit in visits
    }
    assert hippocampus == {
        ("ADNI-0295", "bl"): 4000,  # the screening's, which is that of baseline
        ("ADNI-0295", "m12"): 7000,  # ADNIMERGE's own: the other subject's m12 is not taken
        ("ADNI-0296", "bl"): 7000,
        ("ADNI-0296", "m12"): 3000,
    }
    assert [len(visit.measures) for visit in visits] == [15, 4, 4, 15]


def test_the_table_tells_how_it_was_measured(tmp_path: Path) -> None:
    merged(tmp_path, {})
    write(tmp_path, "UCSFFSX51_11_08_19.csv", SCAN | {"FLDSTRENG": "3", "VISCODE": "v02", "VISCODE2": "scmri"})
    visit = only(tmp_path)
    assert (visit.segmenter, visit.field_strength_t) == ("freesurfer-5.1", 3.0)


@pytest.mark.parametrize(
    ("table", "own", "scan", "expected"),
    [
        ("UCSFFSX_11_02_15.csv", "1.5 Tesla MRI", "3", 3.0),
        ("UCSFFSX_11_02_15.csv", "1.5 Tesla MRI", "", 1.5),
        ("UCSFFSX_11_02_15.csv", "", "", None),
        # Another version than ADNIMERGE's, so perhaps another scan.
        ("UCSFFSX51_ADNI1_3T_05_20_15.csv", "1.5 Tesla MRI", "", None),
    ],
)
def test_field_strength_is_that_of_the_scan_whose_volumes_are_used(
    tmp_path: Path, table: str, own: str, scan: str, expected: float | None
) -> None:
    merged(tmp_path, {"FLDSTRENG": own})
    write(tmp_path, table, SCAN | {"FLDSTRENG": scan})
    visit = only(tmp_path)
    assert (len(visit.measures), visit.field_strength_t) == (15, expected)


def test_scans_without_a_visit_are_set_aside(tmp_path: Path) -> None:
    merged(tmp_path, {}, LATER | {"DX": ""})
    scans = [SCAN | change for change in ({"VISCODE": "m06"}, {"VISCODE": "m12"}, {"RID": "9"}, {"OVERALLQC": "Fail"})]
    write(tmp_path, "UCSFFSX_11_02_15.csv", *scans)
    visits, rejected = read(tmp_path)
    assert len(visits) == 1 and len(visits) + len(rejected) == 2 + len(scans)
    assert {row.source for row in rejected} == {"ADNIMERGE.csv:3", *(f"UCSFFSX_11_02_15.csv:{n}" for n in (2, 3, 4, 5))}


def test_volumes_of_no_head_are_left_out_and_the_visit_stays(tmp_path: Path) -> None:
    visit = only(merged(tmp_path, {"ICV": "291132"}))
    assert (visit.measures, visit.segmenter, visit.warnings, visit.mmse) == ((), None, (NO_ICV,), 28)


def test_ventricles_of_adnimerge_are_no_region(tmp_path: Path) -> None:
    gone = dict.fromkeys(("Hippocampus", "Entorhinal", "Fusiform"), "")
    assert only(merged(tmp_path, gone)).measures == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"RID": ""}, "RID is missing"),
        ({"PTID": "002_S_0296"}, "PTID and RID name different subjects"),
        ({"VISCODE": "nv"}, "VISCODE is no visit of the study"),
        ({"VISCODE": "uns1"}, "VISCODE is no visit of the study"),
        ({"VISCODE": "sc"}, "a screening, which ADNIMERGE has among the values of baseline"),
        ({"PTGENDER": "X"}, "PTGENDER has an unknown code"),
        ({"PTMARRY": "7"}, "PTMARRY has an unknown code"),
        ({"AGE": "848"}, "AGE is outside 18 to 120"),
        ({"MMSE": "31"}, "MMSE is outside 0 to 30"),
        ({"MMSE": "28.5"}, "MMSE is not a whole number"),
        ({"APOE4": "3"}, "APOE4 is outside 0 to 2"),
        ({"PTEDUCAT": "99"}, "PTEDUCAT is outside"),
        ({"EXAMDATE": "20/04/2006"}, "EXAMDATE is no date"),
        ({"Years_bl": "-9"}, "Years_bl is outside"),
        ({"Hippocampus": "inf"}, "Hippocampus is outside"),
        ({"FLDSTRENG": "strong"}, "FLDSTRENG is no field strength"),
    ],
)
def test_a_bad_value_sets_its_row_alone_aside_and_is_not_repeated(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    (visit,), (rejected,) = read(merged(tmp_path, change, {"RID": "7", "PTID": "002_S_0007"}))
    assert visit.patient_id == "ADNI-0007"
    assert rejected.source == "ADNIMERGE.csv:2" and rejected.reason.startswith(reason), rejected.reason
    assert "0295" not in rejected.model_dump_json()
    assert not any(value in rejected.reason for value in ("848", "31", "28.5", "99", "2006", "strong", "inf,", "X;"))


def test_a_repeated_visit_is_set_aside(tmp_path: Path) -> None:
    (visit,), (rejected,) = read(merged(tmp_path, {}, {"MMSE": "20"}))
    assert (visit.mmse, rejected.source) == (28, "ADNIMERGE.csv:3")
    visits, rejected_rows = read(merged(tmp_path, {}, {"DX": "MCI"}, {"RID": "7", "PTID": ""}))
    assert [visit.patient_id for visit in visits] == ["ADNI-0007"]
    assert [row.source for row in rejected_rows] == ["ADNIMERGE.csv:2", "ADNIMERGE.csv:3"]


def test_a_subject_of_two_sexes_is_set_aside(tmp_path: Path) -> None:
    visits, rejected = read(merged(tmp_path, {}, LATER | {"PTGENDER": "Female"}, {"RID": "7", "PTID": "002_S_0007"}))
    assert [visit.patient_id for visit in visits] == ["ADNI-0007"]
    assert {row.reason for row in rejected} == {"rows of the same subject disagree on sex"}


@pytest.mark.parametrize("column", ["DX", "AGE", "VISCODE", "PTGENDER", "MMSE", "APOE4", "EXAMDATE"])
def test_a_renamed_column_is_named(tmp_path: Path, column: str) -> None:
    with pytest.raises(StudyFileError, match=rf"ADNIMERGE\.csv: no column {column}[ ;]"):
        read(merged(tmp_path, {}, without=(column,)))


def test_a_folder_without_the_tables(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"neither ADNIMERGE\.csv nor DXSUM\.csv"):
        read(tmp_path)


def test_two_releases_are_refused(tmp_path: Path) -> None:
    write(merged(tmp_path, {}), "ADNIMERGE_23Dec2025.csv", ROW)
    with pytest.raises(StudyFileError, match=r"ADNIMERGE\.csv and ADNIMERGE_23Dec2025\.csv"):
        read(tmp_path)


def test_not_utf8_and_too_wide(tmp_path: Path) -> None:
    (tmp_path / "ADNIMERGE.csv").write_text("RID,VISCODE\n1,bl\n", encoding="utf-16")
    with pytest.raises(StudyFileError, match="not UTF-8"):
        read(tmp_path)
    (tmp_path / "ADNIMERGE.csv").write_text(",".join(f"c{n}" for n in range(100_000)) + "\n", encoding="utf-8")
    with pytest.raises(StudyFileError, match="100000 columns"):
        read(tmp_path)
