"""SynthSeg's volumes table, as `write_csv` of its predict.py writes it; volumes are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.columns import TOO_MANY_CELLS, StudyFileError
from clinical_reasoner.cohort.synthseg import STRUCTURES, read_synthseg_volumes, subject_of
from clinical_reasoner.cohort.visits import LOBES, REGIONS
from clinical_reasoner.records import RejectedRow
from tests.unit.cohort.fixtures.synthseg import ICV, PARC, PLAIN, line, table


def values(folder: Path, *lines: str) -> dict[str, dict[str, float]]:
    found = read_synthseg_volumes(table(folder, *lines))
    assert all(one.unit == "mm3" for scan in found.values() for one in scan.measures)
    return {subject: {one.name: one.value for one in scan.measures} for subject, scan in found.items()}


def test_without_parcels_the_cortex_is_unknown(tmp_path: Path) -> None:
    found = values(tmp_path, PLAIN, line(PLAIN, "sub-01_T1w"), line(PLAIN, "sub-02_T1w", left_hippocampus="2000"))
    assert set(found) == {"sub-01_T1w", "sub-02_T1w"}
    assert set(found["sub-01_T1w"]) == {
        "hippocampus",
        "amygdala",
        "lateral_ventricle",
        "inferior_lateral_ventricle",
        "icv",
    }
    at = PLAIN.split(",").index
    expected = 2000.5 + at("left hippocampus") + at("right hippocampus")
    assert found["sub-01_T1w"]["hippocampus"] == pytest.approx(expected)
    assert found["sub-01_T1w"]["icv"] == ICV
    assert found["sub-02_T1w"]["hippocampus"] == pytest.approx(3000.25 + at("right hippocampus"))


def test_with_parcels_all_regions_but_lesions_are_there(tmp_path: Path) -> None:
    found = values(tmp_path, PARC, line(PARC, "a"))["a"]
    assert set(found) == set(REGIONS) - {"wm_hypointensities"}
    at = PARC.split(",").index
    entorhinal = 2000.5 + at("ctx-lh-entorhinal") + at("ctx-rh-entorhinal")
    assert found["entorhinal"] == pytest.approx(entorhinal)
    parts = ("lateraloccipital", "lingual", "cuneus", "pericalcarine")
    occipital = sum(1000.25 + at(f"ctx-{side}-{part}") for part in parts for side in ("lh", "rh"))
    assert found["occipital"] == pytest.approx(occipital)


def test_every_structure_is_a_column_and_no_parcel_is_in_two_lobes() -> None:
    columns = PARC.split(",")
    assert {one for structures in STRUCTURES.values() for one in structures} <= set(columns)
    in_lobes = [one for lobe in LOBES for one in STRUCTURES[lobe]]
    assert len(in_lobes) == len(set(in_lobes))
    left_out = set(columns) - set(in_lobes)
    assert {one.split("-")[-1] for one in left_out if one.startswith("ctx-")} == {
        "caudalanteriorcingulate",
        "isthmuscingulate",
        "posteriorcingulate",
        "rostralanteriorcingulate",
        "insula",
    }


def test_first_column_without_a_name_and_version_1(tmp_path: Path) -> None:
    header = PLAIN.removeprefix("subject")
    row = line(PLAIN, "sub-01_T1w")
    assert values(tmp_path, header, "", row) == values(tmp_path, PLAIN, row)
    assert read_synthseg_volumes(table(tmp_path, header, "", row))["sub-01_T1w"].place == "volumes.csv:3"
    semicolons = [text.replace(",", ";") for text in (header, row)]
    assert values(tmp_path, *semicolons) == values(tmp_path, PLAIN, row)
    old = header.replace(",total intracranial", "")
    cells = row.split(",")
    assert "icv" not in values(tmp_path, old, ",".join([cells[0], *cells[2:]]))["sub-01_T1w"]


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("sub-01_T1w", "sub-01_T1w"),
        ("/data/in/sub-01_ses-M00_T1w.nii.gz", "sub-01_ses-M00_T1w"),
        ("C:\\data\\p.7.NII", "p.7"),
        ("orig.mgz", "orig"),
        ("a.mgh.gz", "a"),
        (" 007 ", "007"),
    ],
)
def test_subject_of_a_path(text: str, subject: str) -> None:
    assert subject_of(text) == subject


def test_path_column_and_header_in_capitals(tmp_path: Path) -> None:
    header = PLAIN.replace("subject", "path")
    assert set(values(tmp_path, header.upper(), line(header, "/x/s1.nii.gz"))) == {"s1"}
    semicolons = [text.replace(",", ";") for text in (PLAIN, line(PLAIN, "s1"))]
    assert set(values(tmp_path, *semicolons)) == {"s1"}


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "NA"])
def test_missing_volume_leaves_its_measure_out(tmp_path: Path, missing: str) -> None:
    found = values(tmp_path, PLAIN, line(PLAIN, "a", right_hippocampus=missing))["a"]
    assert "hippocampus" not in found and "amygdala" in found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"left_hippocampus": "-3"}, "left hippocampus is outside"),
        ({"left_hippocampus": "big"}, "left hippocampus is not a number"),
        ({"left_hippocampus": "inf"}, "left hippocampus is outside"),
        ({"left_hippocampus": "0", "right_hippocampus": "0"}, "hippocampus is 0 mm3"),
        ({"total_intracranial": "500000"}, "icv is outside 0.9 to 2.2 litres"),
        ({"subject": ""}, "subject is empty"),
        ({"subject": "first"}, "the same subject as an earlier row"),
        ({"subject": "/elsewhere/first.nii.gz"}, "the same subject as an earlier row"),
    ],
)
def test_bad_row_is_set_aside_with_its_place(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    rejected: list[RejectedRow] = []
    file = table(tmp_path, PLAIN, line(PLAIN, "first"), line(PLAIN, "secret-id", **changes), line(PLAIN, "last"))
    assert set(read_synthseg_volumes(file, rejected)) == {"first", "last"}
    (row,) = rejected
    assert row.source == "volumes.csv:3" and row.reason.startswith(reason)
    assert "secret" not in row.model_dump_json() and "first" not in row.model_dump_json()


def test_row_with_more_cells_than_columns_is_set_aside(tmp_path: Path) -> None:
    rejected: list[RejectedRow] = []
    for header in (PLAIN, PLAIN.removeprefix("subject")):
        shifted = line(PLAIN, "secret-id").replace("secret-id", "secret-id,1")
        found = read_synthseg_volumes(table(tmp_path, header, shifted, line(PLAIN, "last")), rejected)
        assert set(found) == {"last"}
    assert [(row.source, row.reason) for row in rejected] == [("volumes.csv:2", TOO_MANY_CELLS)] * 2


def test_row_without_any_volume(tmp_path: Path) -> None:
    rejected: list[RejectedRow] = []
    empty = "a" + "," * PLAIN.count(",")
    assert read_synthseg_volumes(table(tmp_path, PLAIN, empty), rejected) == {}
    assert [row.reason for row in rejected] == ["no volumes"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (PLAIN.replace("left hippocampus", "Left-Hippocampus"), "no column left hippocampus; it has subject"),
        (PLAIN.replace("subject", "who"), "no column subject or path or image; it has who"),
        (f"{PLAIN},left hippocampus", "stands there twice"),
    ],
)
def test_other_table_is_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        read_synthseg_volumes(table(tmp_path, header, line(PLAIN, "a")))
