"""ADNI's FreeSurfer tables: sums of regions, quality ratings, one scan per visit, and what it was measured with."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from clinical_reasoner.cohort.adni_volumes import (
    COLUMNS_OF,
    VOLUMES,
    Scan,
    field_strength,
    read_volumes,
    scan_fields,
    segmenter_of,
)
from clinical_reasoner.cohort.columns import StudyFileError, StudyRow
from clinical_reasoner.cohort.joins import Key
from clinical_reasoner.cohort.visits import LOBES, REGIONS
from clinical_reasoner.records import RejectedRow

RATINGS = ("TEMPQC", "FRONTQC", "PARQC", "INSULAQC", "OCCQC", "BGQC", "CWMQC", "VENTQC")
SCAN = {
    "RID": "295",
    "VISCODE": "v03",
    "VISCODE2": "m12",
    "EXAMDATE": "2011-06-02",
    "VERSION": "2012-08-31",
    "LONISID": "1",
    "FLDSTRENG": "3",
    "IMAGEUID": "238540",
    "RUNDATE": "2011-07-01",
    "STATUS": "complete",
    "OVERALLQC": "Pass",
    **dict.fromkeys(RATINGS, "Pass"),
    **{column: str(1000 + number) for number, column in enumerate(VOLUMES)},
    "ST10CV": "1500000",
    "ST29SV": "3500.5",
    "ST88SV": "3600.5",
    "ST29SA": "NA",
}


def table(folder: Path, name: str, *changes: dict[str, str], without: tuple[str, ...] = ()) -> Path:
    rows = [SCAN | change for change in changes]
    fields = [column for column in {column: 0 for row in rows for column in row} if column not in without]
    with (folder / name).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fields, restval="", extrasaction="ignore", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return folder


def read(folder: Path) -> tuple[dict[Key, Scan], list[RejectedRow]]:
    scans, rejected = read_volumes(folder)
    return {key: entry.value for key, entry in scans.items()}, rejected


def only(folder: Path) -> Scan:
    scans, _ = read(folder)
    (scan,) = scans.values()
    return scan


def test_regions_are_sums_over_both_sides(tmp_path: Path) -> None:
    scans, rejected = read(table(tmp_path, "UCSFFSX51_11_08_19_20Nov2023.csv", {}))
    assert rejected == []
    (key, scan), *_ = scans.items()
    assert key == (295, "m12")
    assert scan.volumes["hippocampus"] == 7101
    assert scan.volumes["icv"] == 1500000
    assert scan.volumes.keys() == set(REGIONS)
    assert (scan.segmenter, scan.field_strength_t, scan.warnings) == ("freesurfer-5.1", 3.0, ())
    for lobe in LOBES:
        assert scan.volumes[lobe] == sum(float(SCAN[column]) for column in COLUMNS_OF[lobe])


def test_columns_are_those_of_the_data_dictionary() -> None:
    assert COLUMNS_OF["hippocampus"] == ("ST29SV", "ST88SV")
    assert COLUMNS_OF["amygdala"] == ("ST12SV", "ST71SV")
    assert COLUMNS_OF["lateral_ventricle"] == ("ST37SV", "ST96SV")
    assert COLUMNS_OF["inferior_lateral_ventricle"] == ("ST30SV", "ST89SV")
    assert COLUMNS_OF["entorhinal"] == ("ST24CV", "ST83CV")
    assert COLUMNS_OF["fusiform"] == ("ST26CV", "ST85CV")
    assert COLUMNS_OF["parahippocampal"] == ("ST44CV", "ST103CV")
    assert (COLUMNS_OF["icv"], COLUMNS_OF["wm_hypointensities"]) == (("ST10CV",), ("ST128SV",))
    assert {lobe: len(COLUMNS_OF[lobe]) for lobe in LOBES} == {
        "frontal": 22,
        "temporal": 18,
        "parietal": 10,
        "occipital": 8,
    }
    # A public script counts ST83CV, the right entorhinal cortex, to the occipital lobe.
    assert "ST83CV" in COLUMNS_OF["temporal"] and "ST83CV" not in COLUMNS_OF["occipital"]
    parcels = [column for lobe in LOBES for column in COLUMNS_OF[lobe]]
    assert len(parcels) == len(set(parcels))


@pytest.mark.parametrize(
    ("name", "text", "segmenter"),
    [
        ("UCSFFSX_11_02_15.csv", "", "freesurfer-4.3"),
        ("UCSFFSX51_08_01_16.csv", "", "freesurfer-5.1"),
        ("ucsffsx51final_08_01_16.csv", "", "freesurfer-5.1"),
        ("UCSFFSX51_ADNI1_3T_05_20_15_31May2026.csv", "", "freesurfer-5.1"),
        ("UCSFFSX6_07_06_23_31May2026.csv", "", "freesurfer-6.0"),
        ("All_Subjects_UCSFFSX7_20May2026.csv", "", "freesurfer-7.0"),
        ("UCSFFSX7_20May2026.csv", "7.1.1", "freesurfer-7.1"),
        ("UCSFFSL_02_01_16.csv", "", "freesurfer-4.4-longitudinal"),
        ("UCSFFSL51ALL_08_01_16.csv", "", "freesurfer-5.1-longitudinal"),
        ("UCSFFSL51Y1_05_04_16.csv", "", "freesurfer-5.1-longitudinal"),
    ],
)
def test_segmenter_of_a_table(tmp_path: Path, name: str, text: str, segmenter: str) -> None:
    assert only(table(tmp_path, name, {"FSVER": text})).segmenter == segmenter


def test_segmenter_of_a_text() -> None:
    assert segmenter_of("Cross-Sectional FreeSurfer (FreeSurfer Version 4.3)") == "freesurfer-4.3"
    assert segmenter_of("Cross-Sectional FreeSurfer (6.0)") == "freesurfer-6.0"
    assert segmenter_of("Longitudinal FreeSurfer (5.1)") == "freesurfer-5.1-longitudinal"
    assert segmenter_of(None) is None and segmenter_of("FreeSurfer") is None


@pytest.mark.parametrize(
    ("text", "tesla"),
    [("1.5", 1.5), ("3", 3.0), ("3T", 3.0), ("3.0 T", 3.0), ("1.5 Tesla MRI", 1.5), ("3 Tesla MRI", 3.0), (None, None)],
)
def test_field_strength(text: str | None, tesla: float | None) -> None:
    assert field_strength(StudyRow("t.csv:2", {"FLDSTRENG": text})) == tesla


@pytest.mark.parametrize("text", ["0", "15000", "3 Gauss", "high", "1.5.0"])
def test_what_is_no_field_strength(tmp_path: Path, text: str) -> None:
    scans, (rejected,) = read(table(tmp_path, "UCSFFSX6.csv", {}, {"RID": "7", "FLDSTRENG": text}))
    assert list(scans) == [(295, "m12")]
    assert rejected.reason == "FLDSTRENG is no field strength in tesla"


def test_a_missing_field_strength_is_unknown(tmp_path: Path) -> None:
    assert only(table(tmp_path, "UCSFFSX6.csv", {}, without=("FLDSTRENG",))).field_strength_t is None
    (tmp_path / "UCSFFSX6.csv").unlink()
    newer = table(tmp_path, "UCSFFSX7.csv", {"FIELD_STRENGTH": "3T"}, without=("FLDSTRENG",))
    assert only(newer).field_strength_t == 3.0


@pytest.mark.parametrize(
    ("rating", "lost"),
    [
        ("TEMPQC", {"hippocampus", "entorhinal", "parahippocampal", "fusiform", "amygdala", "temporal"}),
        ("FRONTQC", {"frontal"}),
        ("PARQC", {"parietal", "precuneus", "superior_parietal"}),
        ("OCCQC", {"occipital"}),
        ("VENTQC", {"lateral_ventricle", "inferior_lateral_ventricle"}),
        ("CWMQC", {"wm_hypointensities"}),
        ("INSULAQC", set()),
        ("BGQC", set()),
    ],
)
def test_a_failed_rating_makes_its_regions_missing(tmp_path: Path, rating: str, lost: set[str]) -> None:
    scan = only(table(tmp_path, "UCSFFSX6.csv", {"OVERALLQC": "Partial", rating: "fail"}))
    assert set(REGIONS) - scan.volumes.keys() == lost
    assert scan.warnings == ("segmentation failed in part",)


@pytest.mark.parametrize(
    ("ratings", "there"),
    [
        ({"LHIPQC": "Pass", "RHIPQC": "Pass", "TEMPQC": "Fail"}, True),
        ({"LHIPQC": "Pass", "RHIPQC": "Fail"}, False),
        ({"LHIPQC": "Fail", "RHIPQC": ""}, False),
        ({"HIPPOQC": "Pass", "TEMPQC": "Fail"}, True),
        ({"HIPPOQC": "Fail"}, False),
        ({"HIPPOQC": "", "TEMPQC": "Fail"}, False),
        ({"HIPPOQC": "", "TEMPQC": "Partial"}, True),
    ],
)
def test_the_hippocampus_has_a_rating_of_its_own_or_that_of_the_lobe(
    tmp_path: Path, ratings: dict[str, str], there: bool
) -> None:
    assert ("hippocampus" in only(table(tmp_path, "UCSFFSX6.csv", ratings)).volumes) is there


def test_overall_ratings(tmp_path: Path) -> None:
    people = [
        {"RID": str(number), "OVERALLQC": text}
        for number, text in enumerate(("Pass", "Partial", "Hippocampus Only", "", "NA", "Fail", "Good"), start=1)
    ]
    scans, rejected = read(table(tmp_path, "UCSFFSX7.csv", *people))
    assert [number for number, _ in scans] == [1, 2, 3, 4, 5]
    assert scans[3, "m12"].volumes.keys() == {"hippocampus", "icv"}
    assert scans[4, "m12"].warnings == scans[5, "m12"].warnings == ("segmentation not rated for quality",)
    assert [row.reason.partition(";")[0] for row in rejected] == ["OVERALLQC is Fail", "OVERALLQC has an unknown code"]


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"ST88SV": ""}, {"hippocampus"}),
        ({"ST88SV": "0"}, {"hippocampus"}),
        ({"ST88SV": "-4"}, {"hippocampus"}),
        ({"ST83CV": "NA"}, {"entorhinal", "temporal"}),
        ({"ST128SV": "0"}, set()),
        ({"ST128SV": ""}, {"wm_hypointensities"}),
        ({"ST10CV": ""}, {"icv"}),
    ],
)
def test_a_sum_lacks_no_part(tmp_path: Path, change: dict[str, str], lost: set[str]) -> None:
    assert set(REGIONS) - only(table(tmp_path, "UCSFFSX6.csv", change)).volumes.keys() == lost


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ST10CV": "291132"}, "ST10CV (ICV) is outside"),
        ({"ST10CV": "1500"}, "ST10CV (ICV) is outside"),
        ({"ST29SV": "-3500"}, "ST29SV is outside"),
        ({"ST29SV": "1e12"}, "ST29SV is outside"),
        ({"ST29SV": "big"}, "ST29SV is not a number"),
        ({"VISCODE2": "f"}, "VISCODE is no visit"),
        ({"VISCODE2": ""}, "VISCODE is no visit"),
        ({"RID": ""}, "RID is missing"),
        ({"RUNDATE": "soon"}, "RUNDATE is no date"),
        ({"TEMPQC": "Failed"}, "TEMPQC has an unknown code"),
        (dict.fromkeys((column for column in VOLUMES if column != "ST10CV"), ""), "no region has a volume"),
    ],
)
def test_a_row_that_cannot_be_used(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    scans, (rejected,) = read(table(tmp_path, "UCSFFSX6.csv", change, {"RID": "7"}))
    assert list(scans) == [(7, "m12")]
    assert rejected.source == "UCSFFSX6.csv:2" and rejected.reason.startswith(reason)
    assert "295" not in rejected.model_dump_json()


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"OVERALLQC": "Partial"}, {"OVERALLQC": "Pass", "FRONTQC": "Partial", "RUNDATE": "2010-01-01"}),
        ({"OVERALLQC": ""}, {"OVERALLQC": "Partial"}),
        ({"OVERALLQC": "Hippocampus Only"}, {"OVERALLQC": ""}),
        ({"OVERALLQC": "Fail"}, {"OVERALLQC": "Hippocampus Only"}),
        ({"FRONTQC": "Partial", "RUNDATE": "2012-01-01"}, {}),
        ({"RUNDATE": "2011-06-30"}, {"RUNDATE": "2011-07-01"}),
        ({"RUNDATE": "06/30/2011"}, {"RUNDATE": "12/01/2011"}),
        ({"RUNDATE": ""}, {"RUNDATE": "2011-07-01"}),
        ({"IMAGETYPE": "Non-Accelerated T1"}, {"IMAGETYPE": "Accelerated T1"}),
        ({"VISCODE2": "bl"}, {"VISCODE2": "sc", "OVERALLQC": "Partial"}),
        ({"VISCODE2": "bl"}, {"VISCODE2": "scmri"}),
        ({"VISCODE2": "sc", "OVERALLQC": "Fail"}, {"VISCODE2": "bl"}),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_one_scan_per_visit(tmp_path: Path, worse: dict[str, str], better: dict[str, str], turned: bool) -> None:
    rows = [worse | {"ST29SV": "1000"}, better | {"ST29SV": "2000"}]
    scans, rejected = read(table(tmp_path, "UCSFFSX6.csv", *(rows[::-1] if turned else rows)))
    (scan,) = scans.values()
    assert scan.volumes["hippocampus"] == 2000 + 3600.5
    assert [row.source for row in rejected] == [f"UCSFFSX6.csv:{3 if turned else 2}"]


def test_of_equal_scans_the_first_is_used(tmp_path: Path) -> None:
    scans, rejected = read(table(tmp_path, "UCSFFSX6.csv", {"ST29SV": "1000"}, {"ST29SV": "2000"}))
    assert scans[295, "m12"].volumes["hippocampus"] == 4600.5
    assert [row.reason for row in rejected] == ["another row of the same subject and visit is used"]


def test_cross_sectional_before_longitudinal_and_the_newest_version(tmp_path: Path) -> None:
    for name in ("UCSFFSX_11_02_15.csv", "UCSFFSX51_11_08_19.csv", "UCSFFSL51ALL_08_01_16.csv"):
        table(tmp_path, name, {})
    table(tmp_path, "UCSFFSX6_07_06_23.csv", {"OVERALLQC": "Partial"})
    scans, rejected = read(tmp_path)
    assert [scan.segmenter for scan in scans.values()] == ["freesurfer-6.0"]
    assert len(rejected) == 3
    (tmp_path / "UCSFFSX6_07_06_23.csv").unlink()
    assert only(tmp_path).segmenter == "freesurfer-5.1"
    (tmp_path / "UCSFFSX51_11_08_19.csv").unlink()
    assert only(tmp_path).segmenter == "freesurfer-4.3"
    (tmp_path / "UCSFFSX_11_02_15.csv").unlink()
    assert only(tmp_path).warnings == ("volumes from a longitudinal template, made of later scans too",)


def test_the_first_table_has_no_second_visit_code(tmp_path: Path) -> None:
    table(tmp_path, "UCSFFSX_11_02_15.csv", {"VISCODE": "sc"}, {"VISCODE": "m06"}, without=("VISCODE2",))
    assert list(read(tmp_path)[0]) == [(295, "bl"), (295, "m06")]


def test_two_releases_of_one_table_are_refused(tmp_path: Path) -> None:
    table(tmp_path, "UCSFFSX51_08_01_16.csv", {})
    table(tmp_path, "UCSFFSX51_11_08_19.csv", {})
    with pytest.raises(StudyFileError, match=r"UCSFFSX51_08_01_16\.csv and UCSFFSX51_11_08_19\.csv"):
        read(tmp_path)


@pytest.mark.parametrize("column", ["RID", "OVERALLQC", "ST29SV", "ST128SV", "ST10CV", "ST121CV"])
def test_a_renamed_column_is_named(tmp_path: Path, column: str) -> None:
    table(tmp_path, "UCSFFSX7_21May2026.csv", {}, without=(column,))
    with pytest.raises(StudyFileError, match=rf"UCSFFSX7_21May2026\.csv: no column {column}"):
        read(tmp_path)


def test_no_tables_no_scans(tmp_path: Path) -> None:
    table(tmp_path, "UCSFFSX51_DICT_08_01_14.csv", {})
    assert read(tmp_path) == ({}, [])


def test_fields_of_a_visit(tmp_path: Path) -> None:
    fields = scan_fields(only(table(tmp_path, "UCSFFSX6.csv", {"OVERALLQC": "Partial", "TEMPQC": "Fail"})))
    names = [one.name for one in fields["measures"]]
    assert names == [region for region in REGIONS if region in names] and "hippocampus" not in names
    assert {one.unit for one in fields["measures"]} == {"mm3"}
    assert scan_fields(None) == {}
