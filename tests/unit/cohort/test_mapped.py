"""The generic table reader: columns, units and codes from YAML; CSV, Parquet and Excel alike."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest

from clinical_reasoner.cohort.columns import TOO_MANY_CELLS, StudyFileError
from clinical_reasoner.cohort.mapped import read_mapped
from clinical_reasoner.cohort.visits import Visit, choose_visits
from clinical_reasoner.config.columns import TableMapping
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import Measure, RejectedRow

MAPPING = """
patient_id: {columns: [Case]}
visit_id: {columns: [Wave]}
age_years: {columns: [AgeMonths], unit: months, missing: [-9]}
sex: {columns: [Geschlecht], codes: {"1": male, "2": female}, missing: ["9"]}
education_years: {columns: [EDUC], missing: [99]}
marital_status: {columns: [MARI], codes: {"1": married, "2": widowed}, missing: ["9"]}
mmse: {columns: [MMS], missing: [88]}
apoe4_copies: {columns: [APOE], codes: {"33": 0, "34": 1, "44": 2}}
label: {columns: [CDGLOBAL], codes: {"0": NC, "0.5": MCI, "1": AD, "2": AD}, source: CDR (proxy)}
field_strength_t: {columns: [Tesla]}
measures:
  hippocampus: {columns: [HippL, HippR], unit: cm3}
  icv: {columns: [ICV], unit: ml}
  mta: {columns: [MtaL, MtaR], unit: rating, combine: max}
segmenter: freesurfer-6.0
"""
HEADER = "Case,Wave,AgeMonths,Geschlecht,EDUC,MARI,MMS,APOE,CDGLOBAL,Tesla,HippL,HippR,ICV,MtaL,MtaR"
BY_AGE = "patient_id: {columns: [id]}\nvisit_id: {columns: [visit]}\nage_years: {columns: [age]}"
TYPED = (
    "patient_id: {columns: [case]}\nvisit_id: {columns: [wave]}\nage_years: {columns: [age]}\n"
    "mmse: {columns: [mms]}\nsex: {columns: [sex]}\n"
)
GOOD = "007,bl,903,2,12,2,24,34,0.5,3,3.1,3.25,1410.5,1,2"


@pytest.fixture
def mapping(tmp_path: Path) -> TableMapping:
    return load(tmp_path, MAPPING)


def load(folder: Path, text: str) -> TableMapping:
    file = folder / "mapping.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(TableMapping, file)


def table(folder: Path, *lines: str, header: str = HEADER) -> Path:
    file = folder / "clinic.csv"
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return file


def read(file: Path, mapping: TableMapping) -> tuple[list[Visit], list[RejectedRow]]:
    rows = list(read_mapped(file, mapping, "clinic"))
    return [row for row in rows if isinstance(row, Visit)], [row for row in rows if isinstance(row, RejectedRow)]


def changed(name: str, value: str) -> str:
    fields = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    return ",".join((fields | {name: value}).values())


def test_full_row(tmp_path: Path, mapping: TableMapping) -> None:
    visits, rejected = read(table(tmp_path, GOOD), mapping)
    assert rejected == []
    assert visits == [
        Visit(
            patient_id="007",
            visit_id="bl",
            cohort="clinic",
            label="MCI",
            label_source="CDR (proxy)",
            age_years=75.25,
            sex="female",
            education_years=12.0,
            marital_status="widowed",
            mmse=24,
            apoe4_copies=1,
            measures=(
                Measure(name="hippocampus", value=6350.0, unit="mm3"),
                Measure(name="icv", value=1410500.0, unit="mm3"),
                Measure(name="mta", value=2.0, unit="rating"),
            ),
            segmenter="freesurfer-6.0",
            field_strength_t=3.0,
            source="clinic.csv:2",
        )
    ]


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "NaN", "None", "null", ".", "-1", "-4", "-4.0"])
def test_missing_values_are_unknown(tmp_path: Path, mapping: TableMapping, missing: str) -> None:
    (visit,), rejected = read(table(tmp_path, ",".join(["a", "bl", *[missing] * 13])), mapping)
    assert rejected == []
    assert visit == Visit(patient_id="a", visit_id="bl", cohort="clinic", source="clinic.csv:2")


@pytest.mark.parametrize(
    ("column", "code", "field"),
    [
        ("AgeMonths", "-9", "age_years"),
        ("Geschlecht", "9", "sex"),
        ("Geschlecht", "9.0", "sex"),
        ("EDUC", "99", "education_years"),
        ("MARI", "9", "marital_status"),
        ("MMS", "88", "mmse"),
    ],
)
def test_own_missing_codes(tmp_path: Path, mapping: TableMapping, column: str, code: str, field: str) -> None:
    (visit,), rejected = read(table(tmp_path, changed(column, code)), mapping)
    assert rejected == []
    assert getattr(visit, field) is None


@pytest.mark.parametrize("column", ["HippL", "HippR", "ICV", "MtaL"])
def test_measure_with_a_missing_part_is_left_out(tmp_path: Path, mapping: TableMapping, column: str) -> None:
    (visit,), _ = read(table(tmp_path, changed(column, "NA")), mapping)
    assert len(visit.measures) == 2
    assert column[:3].lower() not in {one.name[:3] for one in visit.measures}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("Case", "", "patient_id is empty"),
        ("Wave", "NA", "visit_id is empty"),
        ("AgeMonths", "old", "age_years is not a number"),
        ("AgeMonths", "75,2", "age_years is not a number"),
        ("AgeMonths", "1600", "age_years is outside 0 to 1560"),
        ("Geschlecht", "3", "sex has an unknown code; known are 1, 2"),
        ("MARI", "cohabiting", "marital_status has an unknown code; known are 1, 2"),
        ("MMS", "31", "mmse is outside 0 to 30"),
        ("MMS", "20.5", "mmse is not a whole number"),
        ("APOE", "35", "apoe4_copies has an unknown code; known are 33, 34, 44"),
        ("CDGLOBAL", "0.25", "label has an unknown code; known are 0, 0.5, 1, 2"),
        ("Tesla", "30000", "field_strength_t is outside 0 to 12"),
        ("Tesla", "0", "field_strength_t: Input should be greater than 0"),
        ("HippL", "3100", "hippocampus (HippL) is outside 0 to 3000"),
        ("HippL", "-3", "hippocampus (HippL) is outside 0 to 3000"),
        ("ICV", "1410500", "icv (ICV) is outside 0 to 3000"),
        ("ICV", "141", "icv is outside 0.9 to 2.2 litres; is the unit right?"),
        ("ICV", "inf", "icv (ICV) is outside 0 to 3000"),
        ("MtaL", "5", "mta (MtaL) is outside 0 to 4"),
    ],
)
def test_bad_value_sets_its_row_alone_aside(
    tmp_path: Path, mapping: TableMapping, column: str, value: str, reason: str
) -> None:
    bad = f'"{value}"'.join(changed(column, "@").replace("007", "secret-id").split("@"))
    visits, (rejected,) = read(table(tmp_path, GOOD, bad, GOOD.replace("007", "009")), mapping)
    assert [visit.patient_id for visit in visits] == ["007", "009"]
    assert rejected == RejectedRow(source="clinic.csv:3", stage="patients", reason=reason)


def test_region_of_no_volume_is_set_aside_but_no_lesions_are_not(tmp_path: Path) -> None:
    text = "patient_id: {columns: [id]}\nmeasures: {%s: {columns: [v], unit: mm3}}"
    file = table(tmp_path, "a,0", header="id,v")
    assert read(file, load(tmp_path, text % "hippocampus"))[1][0].reason == "hippocampus is 0 mm3"
    ((visit,), rejected) = read(file, load(tmp_path, text % "wm_hypointensities"))
    assert rejected == [] and visit.measures == (Measure(name="wm_hypointensities", value=0.0, unit="mm3"),)


def test_duplicates_and_a_person_with_two_sexes(tmp_path: Path, mapping: TableMapping) -> None:
    lines = [
        GOOD,
        GOOD.replace("903", "904"),
        GOOD.replace("bl", "m06"),
        GOOD.replace("bl,903,2", "m12,915,1"),
        GOOD.replace("007", "7"),
    ]
    visits, rejected = read(table(tmp_path, *lines), mapping)
    assert [(visit.patient_id, visit.visit_id) for visit in visits] == [("007", "bl"), ("007", "m06"), ("7", "bl")]
    assert [(row.source, row.reason) for row in rejected] == [
        ("clinic.csv:3", "the same patient_id and visit_id as an earlier row"),
        ("clinic.csv:5", "sex differs from that of an earlier row of the same person"),
    ]


@pytest.mark.parametrize("header", [HEADER.upper(), HEADER.lower(), f" {HEADER.replace(',', ' , ')} "])
def test_columns_by_name_in_any_case(tmp_path: Path, mapping: TableMapping, header: str) -> None:
    assert read(table(tmp_path, GOOD, header=header), mapping) == read(table(tmp_path, GOOD), mapping)


def test_columns_in_any_order(tmp_path: Path, mapping: TableMapping) -> None:
    expected = read(table(tmp_path, GOOD), mapping)
    names, cells = HEADER.split(",")[::-1], GOOD.split(",")[::-1]
    assert read(table(tmp_path, ",".join(cells), header=",".join(names)), mapping) == expected
    assert read(table(tmp_path, GOOD.replace(",", ";"), header=HEADER.replace(",", ";")), mapping) == expected


def test_renamed_column_is_named_with_what_was_expected(tmp_path: Path, mapping: TableMapping) -> None:
    file = table(tmp_path, GOOD, header=HEADER.replace("CDGLOBAL", "CDR"))
    with pytest.raises(StudyFileError, match=r"clinic\.csv: no column CDGLOBAL; it has Case, Wave"):
        read(file, mapping)


def test_first_known_name_of_a_column_is_used(tmp_path: Path) -> None:
    mapping = load(tmp_path, "patient_id: {columns: [PTID, id]}\nage_years: {columns: [age_scan, age]}")
    (visit,), _ = read(table(tmp_path, "a,71,70", header="ID,Age,age_scan"), mapping)
    assert (visit.patient_id, visit.age_years) == ("a", 70.0)


def test_visits_are_ordered_by_time_then_code_then_age(tmp_path: Path) -> None:
    base = "patient_id: {columns: [id]}\nvisit_id: {columns: [visit]}\nage_years: {columns: [age]}\n"
    mapping = load(tmp_path, base)
    visits, _ = read(table(tmp_path, "a,m12,71", "a,bl,70", "a,uns1,70.5", header="id,visit,age"), mapping)
    assert [visit.years_from_baseline for visit in visits] == [1.0, 0.0, 0.5]
    visits, _ = read(table(tmp_path, "a,third,73", "a,first,70", "b,x,60", header="id,visit,age"), mapping)
    assert [visit.years_from_baseline for visit in visits] == [3.0, 0.0, 0.0]
    assert [visit.visit_id for visit in choose_visits(visits, "baseline")] == ["first", "x"]
    timed = load(tmp_path, base + "years_from_baseline: {columns: [days], unit: days}")
    visits, _ = read(table(tmp_path, "a,m12,71,731", "a,bl,70,", header="id,visit,age,days"), timed)
    assert [visit.years_from_baseline for visit in visits] == [pytest.approx(731 / 365.25), 0.0]


@pytest.mark.parametrize(
    ("lines", "years"),
    [
        (["P1,w3,80", "P1,w1,70", "P1,w2,74", "P2,w1,60"], {"w1": 0.0, "w2": 4.0, "w3": 10.0}),
        (["P1,bl,70", "P1,m12,71", "P1,x,80", "P1,y,61"], {"y": 0.0, "bl": 9.0, "m12": 10.0, "x": 19.0}),
    ],
)
def test_order_of_rows_makes_no_difference(tmp_path: Path, lines: list[str], years: dict[str, float]) -> None:
    mapping = load(tmp_path, BY_AGE)
    for rows in itertools.permutations(lines):
        visits, rejected = read(table(tmp_path, *rows, header="id,visit,age"), mapping)
        assert rejected == []
        assert {one.visit_id: one.years_from_baseline for one in visits if one.patient_id == "P1"} == years


def test_person_of_two_lifetimes_is_set_aside_in_either_order(tmp_path: Path) -> None:
    mapping = load(tmp_path, BY_AGE)
    for lines in (["a,x,20", "a,y,95"], ["a,y,95", "a,x,20"]):
        (visit,), (rejected,) = read(table(tmp_path, *lines, header="id,visit,age"), mapping)
        assert visit.age_years == 20.0 and rejected.reason.startswith("years_from_baseline: ")


def test_row_with_more_cells_than_columns_is_set_aside(tmp_path: Path, mapping: TableMapping) -> None:
    shifted = GOOD.replace("903", "903,5").replace("007", "secret")
    visits, (rejected,) = read(table(tmp_path, GOOD, shifted, f"{GOOD.replace('007', '8')},,"), mapping)
    assert [visit.patient_id for visit in visits] == ["007", "8"]
    assert (rejected.source, rejected.reason) == ("clinic.csv:3", TOO_MANY_CELLS)


def test_ages_as_a_lower_bound(tmp_path: Path) -> None:
    mapping = load(tmp_path, "patient_id: {columns: [id]}\nage_years: {columns: [age]}")
    visits, rejected = read(
        table(tmp_path, "a,89+", "b,92 +", "c,90.1", "d,>89", "e,+", "f,890+", header="id,age"), mapping
    )
    assert [(visit.age_years, visit.at_least) for visit in visits] == [
        (89.0, ("age_years",)),
        (92.0, ("age_years",)),
        (90.1, ()),
    ]
    reasons = [row.reason for row in rejected]
    assert reasons[:2] == ["age_years is not a number"] * 2 and reasons[2].startswith("age_years: ")
    file = table(tmp_path, "a,x,88", "a,y,89+", "a,z,89+", header="id,visit,age")
    by_visit = load(tmp_path, "patient_id: {columns: [id]}\nvisit_id: {columns: [visit]}\nage_years: {columns: [age]}")
    assert [visit.years_from_baseline for visit in read(file, by_visit)[0]] == [0.0, 0.0, 0.0]


def test_label_names_that_every_study_knows(tmp_path: Path) -> None:
    mapping = load(tmp_path, "patient_id: {columns: [id]}\nlabel: {columns: [Dx]}")
    visits, (rejected,) = read(table(tmp_path, "a,CN", "b,mci", "c,AD", "d,dementia", header="id,dx"), mapping)
    assert [(visit.label, visit.label_source) for visit in visits] == [("NC", "Dx"), ("MCI", "Dx"), ("AD", "Dx")]
    assert rejected.reason.startswith("label has an unknown code; known are AD, MCI, NC, CN")


def test_paths_stay_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / "a.mgz").touch()
    (tmp_path / "out.mgz").touch()
    (folder / "link.mgz").symlink_to(tmp_path / "out.mgz")
    (folder / "loop.mgz").symlink_to(folder / "loop.mgz")
    mapping = load(tmp_path, "patient_id: {columns: [id]}\nsegmentation_path: {columns: [seg]}\nsegmenter: x")
    cells = ("a.mgz", "link.mgz", "../out.mgz", str(tmp_path / "out.mgz"), "none.mgz", "loop.mgz", "./")
    lines = [f"p{number},{cell}" for number, cell in enumerate(cells)]
    visits, rejected = read(table(folder, *lines, "q,", header="id,seg"), mapping)
    assert [(visit.patient_id, visit.segmentation_path, visit.segmenter) for visit in visits] == [
        ("p0", str(folder / "a.mgz"), "x"),
        ("q", None, None),
    ]
    outside = "a file of the visit is outside the cohort folder, or a link that leaves it"
    gone = "a file of the visit is not there, or is a link to nothing; was it fetched?"
    assert [row.reason for row in rejected] == [outside] * 3 + [gone] * 2 + ["a file of the visit is no file"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no file at"),
        ("none.parquet", None, "no file at"),
        ("clinic.parquet", b"PAR1 not really PAR1", "not readable as Parquet"),
        ("clinic.parquet", b"", "not readable as Parquet"),
        ("clinic.xls", b"\xd0\xcf", r"\.xls ending; use \.csv, \.tsv, \.parquet or \.xlsx"),
        ("clinic", b"", r"no ending; use \.csv"),
        ("clinic.csv", "Case,Wave\n1,bl\n".encode("utf-16"), "not UTF-8"),
        ("clinic.csv", b"", "no column"),
        ("clinic.csv", (",".join(f"c{number}" for number in range(100_000))).encode(), "100000 columns"),
    ],
)
def test_hostile_or_broken_file_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name, load(tmp_path, TYPED))


def test_wide_parquet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "wide.parquet"
    pd.DataFrame([[0] * 10_001], columns=[f"c{number}" for number in range(10_001)]).to_parquet(file)
    with pytest.raises(StudyFileError, match="10001 columns, more than 10000"):
        read(file, load(tmp_path, TYPED))


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    file = table(tmp_path, *(f"{number},70" for number in range(5000)), header="id,age")
    rows = read_mapped(file, load(tmp_path, "patient_id: {columns: [id]}\nage_years: {columns: [age]}"))
    assert len(list(itertools.islice(rows, 3))) == 3
    assert 3 + sum(1 for _ in rows) == 5000


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("measures: {hippocampus: {columns: [v], unit: rating}}", "measures.hippocampus.unit: 'rating' does not fit"),
        ("measures: {mta: {columns: [v], unit: mm3}}", "measures.mta.unit: 'mm3' does not fit; use rating"),
        ("measures: {hippocampus: {columns: [a, b], unit: mm3, combine: max}}", "a region is the sum of its columns"),
        ('sex: {columns: [s], codes: {"-1": male}}', "sex.codes: '-1' always means a missing value"),
        ("label: {columns: [s], codes: {none: NC}}", "label.codes: 'none' always means a missing value"),
    ],
)
def test_mapping_that_contradicts_itself(tmp_path: Path, lines: str, message: str) -> None:
    mapping = load(tmp_path, f"patient_id: {{columns: [id]}}\n{lines}")
    with pytest.raises(UserError, match=message):
        read(table(tmp_path, "a,1", header="id,v"), mapping)
