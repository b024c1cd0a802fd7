"""ADNI's single tables: diagnoses of every phase, joins by (RID, visit), and facts of a person."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from clinical_reasoner.cohort.adni import read_adni
from clinical_reasoner.cohort.adni_tables import OTHER_CAUSE, read_adni_tables
from clinical_reasoner.cohort.adni_volumes import VOLUMES
from clinical_reasoner.cohort.columns import TOO_MANY_CELLS, StudyFileError
from clinical_reasoner.cohort.joins import NO_PERSON, NO_VISIT
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import RejectedRow

Rows = list[dict[str, str]]
KEYS = {"PHASE": "ADNI2", "PTID": "002_S_4213", "RID": "4213", "VISCODE": "v03", "VISCODE2": "bl"}
DX = KEYS | {"EXAMDATE": "2011-09-15", "DIAGNOSIS": "2", "DXDDUE": "-4"}
PERSON = KEYS | {
    "VISCODE": "v01",
    "VISCODE2": "sc",
    "VISDATE": "2011-08-01",
    "PTGENDER": "2",
    "PTDOB": "09/1933",
    "PTDOBYY": "1933",
    "PTMARRY": "2",
    "PTEDUCAT": "16",
}
GENE = {"PHASE": "ADNI2", "PTID": "002_S_4213", "RID": "4213", "VISCODE": "v01", "GENOTYPE": "3/4"}
SCORE = KEYS | {"VISCODE": "v01", "VISCODE2": "sc", "VISDATE": "2011-08-01", "MMSCORE": "27"}
SCAN = KEYS | {"VISCODE": "v02", "VISCODE2": "scmri", "OVERALLQC": "Pass", **dict.fromkeys(VOLUMES, "2000")}
SCAN |= {"ST10CV": "1500000"}
YEAR = {"VISCODE": "v11", "VISCODE2": "m12", "EXAMDATE": "2012-09-15"}
OTHER = {"PTID": "002_S_4219", "RID": "4219"}
NAMES = ("DXSUM_05Mar2024", "PTDEMOG_15Jul2023", "APOERES", "MMSE", "UCSFFSX51_11_08_19")


def write(folder: Path, name: str, rows: Rows) -> None:
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list({column: 0 for row in rows for column in row}), restval="")
        writer.writeheader()
        writer.writerows(rows)


def study(folder: Path, dx: Rows, people: Rows | None = None, *more: Rows) -> Path:
    for name, rows in zip(NAMES, (dx, people or [PERSON], *more), strict=False):
        if rows:
            write(folder, name, rows)
    return folder


def read(folder: Path) -> tuple[list[Visit], list[RejectedRow]]:
    out = list(read_adni_tables(folder))
    return [one for one in out if isinstance(one, Visit)], [one for one in out if isinstance(one, RejectedRow)]


def only(folder: Path) -> Visit:
    (visit,), _ = read(folder)
    return visit


def test_a_full_visit(tmp_path: Path) -> None:
    study(tmp_path, [DX], [PERSON], [GENE], [SCORE], [SCAN])
    (visit,), rejected = read(tmp_path)
    assert rejected == []
    assert {one.name for one in visit.measures} >= {"hippocampus", "temporal", "icv"}
    assert visit.segmenter == "freesurfer-5.1"
    assert visit.model_copy(update={"measures": (), "segmenter": None}) == Visit(
        patient_id="ADNI-4213",
        visit_id="bl",
        cohort="ADNI",
        label="MCI",
        label_source="DXSUM DIAGNOSIS",
        age_years=78.0,
        sex="female",
        education_years=16,
        marital_status="widowed",
        mmse=27,
        apoe4_copies=1,
        source="DXSUM_05Mar2024.csv:2",
    )


@pytest.mark.parametrize("name", NAMES)
def test_row_with_more_cells_than_columns_is_set_aside_in_every_table(tmp_path: Path, name: str) -> None:
    study(tmp_path, *([row, row | OTHER] for row in (DX, PERSON, GENE, SCORE, SCAN)))
    file = tmp_path / f"{name}.csv"
    header, first, second = file.read_text(encoding="utf-8").splitlines()
    file.write_text(f"{header}\n{first}\n{second},5\n", encoding="utf-8")
    visits, rejected = read(tmp_path)
    assert (f"{name}.csv:3", TOO_MANY_CELLS) in [(row.source, row.reason) for row in rejected]
    assert len(visits) == (1 if name == NAMES[0] else 2)
    whole = {"PTDEMOG_15Jul2023": "sex", "APOERES": "apoe4_copies", "MMSE": "mmse", NAMES[4]: "measures"}
    assert name == NAMES[0] or not getattr(visits[1], whole[name])


def test_it_is_chosen_where_adnimerge_is_not_there(tmp_path: Path) -> None:
    assert list(read_adni(study(tmp_path, [DX]))) == list(read_adni_tables(tmp_path))


@pytest.mark.parametrize(
    ("columns", "label", "source"),
    [
        ({"DIAGNOSIS": "1"}, "NC", "DIAGNOSIS"),
        ({"DIAGNOSIS": "3.0"}, "AD", "DIAGNOSIS"),
        ({"DIAGNOSIS": "Dementia"}, "AD", "DIAGNOSIS"),
        ({"DIAGNOSIS": "3", "DXDDUE": "1"}, "AD", "DIAGNOSIS"),
        ({"DXCHANGE": "1"}, "NC", "DXCHANGE"),
        ({"DXCHANGE": "2"}, "MCI", "DXCHANGE"),
        ({"DXCHANGE": "3"}, "AD", "DXCHANGE"),
        ({"DXCHANGE": "4"}, "MCI", "DXCHANGE"),
        ({"DXCHANGE": "5"}, "AD", "DXCHANGE"),
        ({"DXCHANGE": "6"}, "AD", "DXCHANGE"),
        ({"DXCHANGE": "7"}, "NC", "DXCHANGE"),
        ({"DXCHANGE": "8"}, "MCI", "DXCHANGE"),
        ({"DXCHANGE": "9"}, "NC", "DXCHANGE"),
        ({"DXCHANGE": "-1", "DXCURREN": "3"}, "AD", "DXCURREN"),
        ({"DXNORM": "1", "DXMCI": "-4", "DXAD": "-4"}, "NC", "DXNORM"),
        ({"DXNORM": "-4", "DXMCI": "1", "DXAD": "0"}, "MCI", "DXMCI"),
        ({"DXAD": "1", "DXOTHDEM": "-4"}, "AD", "DXAD"),
    ],
)
def test_diagnoses_of_every_phase(tmp_path: Path, columns: dict[str, str], label: str, source: str) -> None:
    visit = only(study(tmp_path, [KEYS | {"EXAMDATE": "2011-09-15"} | columns]))
    assert (visit.label, visit.label_source) == (label, f"DXSUM {source}")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"DIAGNOSIS": ""}, "no diagnosis of this visit"),
        ({"DIAGNOSIS": "-4"}, "no diagnosis of this visit"),
        ({"DXCHANGE": "-1"}, "no diagnosis of this visit"),
        ({"DIAGNOSIS": "4"}, "DIAGNOSIS has an unknown code"),
        ({"DXCHANGE": "10"}, "DXCHANGE has an unknown code"),
        ({"DXNORM": "1", "DXAD": "1"}, "DXNORM, DXMCI, DXAD: more than one is 1"),
        ({"DIAGNOSIS": "3", "DXDDUE": "2"}, OTHER_CAUSE),
        ({"DXAD": "1", "DXOTHDEM": "1"}, OTHER_CAUSE),
        ({"DXAD": "-4", "DXOTHDEM": "1"}, OTHER_CAUSE),
        ({"DIAGNOSIS": "1", "EXAMDATE": "soon"}, "EXAMDATE is no date"),
        ({"DIAGNOSIS": "1", "VISCODE2": "f"}, "VISCODE is no visit"),
        ({"DIAGNOSIS": "1", "RID": "4214"}, "PTID and RID name different subjects"),
    ],
)
def test_a_row_without_a_diagnosis_that_can_be_used(tmp_path: Path, columns: dict[str, str], reason: str) -> None:
    row = KEYS | {"EXAMDATE": "2011-09-15"} | columns
    other = KEYS | OTHER | {"EXAMDATE": "2011-09-15", "DIAGNOSIS": "1"}
    (visit,), rejected = read(study(tmp_path, [row, other]))
    assert visit.patient_id == "ADNI-4219"
    first = next(one for one in rejected if one.source == "DXSUM_05Mar2024.csv:2")
    assert first.reason.startswith(reason) and "4213" not in first.model_dump_json()
    assert [one.reason for one in rejected if one.source.startswith("PTDEMOG")] == [NO_PERSON]


def test_the_screening_stands_in_where_baseline_has_no_diagnosis(tmp_path: Path) -> None:
    screening = DX | {"VISCODE": "v01", "VISCODE2": "sc", "EXAMDATE": "2011-08-01", "DIAGNOSIS": "1"}
    assert only(study(tmp_path, [screening, DX])).label == "MCI"
    visit = only(study(tmp_path, [screening, DX | {"DIAGNOSIS": ""}]))
    assert (visit.visit_id, visit.label, visit.source) == ("bl", "NC", "DXSUM_05Mar2024.csv:2")


def test_mmse_at_baseline_is_that_of_the_screening(tmp_path: Path) -> None:
    scores = [SCORE | {"VISCODE2": "bl", "MMSCORE": "20"}, SCORE, SCORE | {"VISCODE2": "m12", "MMSCORE": "0"}]
    visits, rejected = read(study(tmp_path, [DX, DX | YEAR], [PERSON], [GENE], scores))
    assert [(visit.visit_id, visit.mmse) for visit in visits] == [("bl", 27), ("m12", 0)]
    assert [row.source for row in rejected] == ["MMSE.csv:2"]


def test_scores_and_scans_are_joined_by_subject_and_visit(tmp_path: Path) -> None:
    second = [row | OTHER for row in (DX, DX | YEAR)]
    scores = [SCORE, SCORE | OTHER | {"VISCODE2": "m12", "MMSCORE": "17"}, SCORE | {"VISCODE2": "m24"}]
    scans = [SCAN | OTHER | {"VISCODE2": "m12"}]
    study(tmp_path, [DX, DX | YEAR, *second], [PERSON, PERSON | OTHER | {"PTGENDER": "1"}], [GENE], scores, scans)
    visits, rejected = read(tmp_path)
    assert [(visit.patient_id[-1], visit.visit_id, visit.mmse, bool(visit.measures)) for visit in visits] == [
        ("3", "bl", 27, False),
        ("3", "m12", None, False),
        ("9", "bl", None, False),
        ("9", "m12", 17, True),
    ]
    assert [visit.sex for visit in visits] == ["female", "female", "male", "male"]
    assert [visit.apoe4_copies for visit in visits] == [1, 1, None, None]
    assert [(row.source, row.reason) for row in rejected] == [("MMSE.csv:4", NO_VISIT)]


def test_age_is_that_at_the_visit(tmp_path: Path) -> None:
    visits, _ = read(study(tmp_path, [DX, DX | YEAR]))
    assert [visit.age_years for visit in visits] == [78.0, 79.0]
    assert [visit.years_from_baseline for visit in visits] == [0, pytest.approx(366 / 365.25)]


@pytest.mark.parametrize(
    ("change", "age"),
    [
        ({"PTDOB": "", "PTDOBYY": "1933"}, 78),
        ({"PTDOB": "", "PTDOBYY": "1933", "PTDOBMM": "3"}, 78.5),
        ({"PTDOB": "-4", "PTDOBYY": "-4"}, None),
    ],
)
def test_age_from_what_is_known_of_the_birth(tmp_path: Path, change: dict[str, str], age: float | None) -> None:
    assert only(study(tmp_path, [DX], [PERSON | change])).age_years == age


def test_what_changes_is_what_was_said_last_and_not_later(tmp_path: Path) -> None:
    people = [
        PERSON | {"PTMARRY": "1", "PTEDUCAT": "16"},
        PERSON | {"VISCODE2": "m12", "PTMARRY": "2", "PTEDUCAT": "-4"},
        PERSON | {"VISCODE2": "m24", "PTMARRY": "5"},
        PERSON | {"VISCODE2": "m48", "PTMARRY": "3"},
    ]
    rows = [DX, *(DX | YEAR | {"VISCODE2": code} for code in ("m06", "m12", "m24"))]
    visits, rejected = read(study(tmp_path, rows, people[::-1]))
    assert rejected == []
    assert [visit.marital_status for visit in visits] == ["married", "married", "widowed", "widowed"]
    assert {visit.education_years for visit in visits} == {16}


def test_sex_and_birth_of_a_failed_screening_hold(tmp_path: Path) -> None:
    visit = only(study(tmp_path, [DX], [PERSON | {"VISCODE2": "f"}]))
    assert (visit.sex, visit.age_years, visit.education_years, visit.marital_status) == ("female", 78.0, None, None)


@pytest.mark.parametrize("change", [{"PTGENDER": "1"}, {"PTDOB": "09/1943"}])
def test_people_who_are_said_to_be_two(tmp_path: Path, change: dict[str, str]) -> None:
    (visit,), rejected = read(study(tmp_path, [DX], [PERSON, PERSON | change]))
    assert (visit.sex, visit.age_years, visit.label) == (None, None, "MCI")
    assert [row.source for row in rejected] == ["PTDEMOG_15Jul2023.csv:2", "PTDEMOG_15Jul2023.csv:3"]


@pytest.mark.parametrize(
    ("rows", "copies", "aside"),
    [
        ([GENE], 1, 0),
        ([GENE, GENE | {"VISCODE": "bl"}], 1, 0),
        ([GENE | {"GENOTYPE": "4/4"}], 2, 0),
        ([{"RID": "4213", "APGEN1": "2", "APGEN2": "4"}], 1, 0),
        ([{"RID": "4213", "APGEN1": "3", "APGEN2": "-4"}], None, 1),
        ([GENE | {"GENOTYPE": "4-Mar"}], None, 1),
        ([GENE, GENE | {"GENOTYPE": "3/3"}], None, 2),
        ([], None, 0),
    ],
)
def test_genotypes(tmp_path: Path, rows: Rows, copies: int | None, aside: int) -> None:
    (visit,), rejected = read(study(tmp_path, [DX], [PERSON], rows))
    assert (visit.apoe4_copies, len(rejected)) == (copies, aside)


@pytest.mark.parametrize("text", ["-1", "-4", "", "31", "27.5", "x"])
def test_scores_that_are_none(tmp_path: Path, text: str) -> None:
    (visit,), (rejected,) = read(study(tmp_path, [DX], [PERSON], [], [SCORE | {"MMSCORE": text}]))
    assert visit.mmse is None and rejected.reason.startswith("MMSCORE is")


def test_rows_that_contradict_each_other(tmp_path: Path) -> None:
    visits, rejected = read(study(tmp_path, [DX, DX | {"DIAGNOSIS": "3"}, DX | YEAR, DX | YEAR]))
    assert [visit.visit_id for visit in visits] == ["m12"]
    assert [row.source.rpartition(":")[2] for row in rejected] == ["2", "3", "5"]


@pytest.mark.parametrize(
    ("table", "column", "said"),
    [
        (0, "RID", "RID"),
        (0, "EXAMDATE", "EXAMDATE"),
        (0, "DIAGNOSIS", "DIAGNOSIS or DXCHANGE or DXCURREN or DXNORM"),
        (1, "PTGENDER", "PTGENDER"),
        (1, "PTEDUCAT", "PTEDUCAT"),
        (2, "GENOTYPE", "GENOTYPE or APGEN1"),
        (3, "MMSCORE", "MMSCORE"),
        (4, "ST29SV", "ST29SV"),
    ],
)
def test_a_renamed_column_is_named(tmp_path: Path, table: int, column: str, said: str) -> None:
    rows = [dict(row) for row in (DX, PERSON, GENE, SCORE, SCAN)]
    rows[table][f"NEW_{column}"] = rows[table].pop(column)
    study(tmp_path, *([row] for row in rows))
    with pytest.raises(StudyFileError, match=rf"{NAMES[table]}\.csv: no column {said}"):
        read(tmp_path)


def test_tables_that_must_be_there(tmp_path: Path) -> None:
    write(tmp_path, "DXSUM", [DX])
    with pytest.raises(StudyFileError, match=r"no PTDEMOG\.csv, nor one with a date in its name"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["DXSUM_15Jul2023", "DXSUM_PDXCONV_ADNIALL", "PTDEMOG", "MMSE_15Jul2023", "APOERES (1)"]
)
def test_two_releases_are_refused(tmp_path: Path, name: str) -> None:
    study(tmp_path, [DX], [PERSON], [GENE], [SCORE])
    write(tmp_path, name, [DX])
    with pytest.raises(StudyFileError, match="are two releases of one table; keep one"):
        read(tmp_path)


def test_older_names_and_lower_case(tmp_path: Path) -> None:
    write(tmp_path, "DXSUM_PDXCONV_ADNIALL", [{name.lower(): value for name, value in DX.items()}])
    write(tmp_path, "All_Subjects_PTDEMOG_20May2026", [PERSON])
    assert only(tmp_path).label == "MCI"


def test_rows_in_are_visits_and_rejected_and_what_was_joined(tmp_path: Path) -> None:
    dx = [DX, DX | YEAR, DX | OTHER | {"DIAGNOSIS": ""}, DX | {"VISCODE2": "nv"}]
    scores = [SCORE, SCORE | OTHER, SCORE | {"VISCODE2": "m36"}]
    study(tmp_path, dx, [PERSON, PERSON | OTHER], [GENE, GENE | OTHER], scores, [SCAN, SCAN | OTHER])
    visits, rejected = read(tmp_path)
    joined = 1 + 1 + 1 + 1  # a row each of PTDEMOG, APOERES, MMSE and UCSFFSX51
    assert len(visits) + len(rejected) + joined == 4 + 2 + 2 + 3 + 2
    assert len({row.source for row in rejected}) == len(rejected)
