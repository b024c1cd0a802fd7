"""AIBL: joins by (RID, VISCODE), years of birth, and what the study does not tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.aibl import read_aibl
from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.joins import NO_PERSON, NO_VISIT
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import RejectedRow

TABLES = {
    "pdxconv": "RID,SITEID,VISCODE,DXCURREN\n2,2,bl,1\n2,2,m18,2\n3,2,bl,3\n",
    "ptdemog": "RID,SITEID,VISCODE,PTGENDER,PTDOB\n2,2,bl,1,/1935\n3,2,bl,2,/1928\n",
    "mmse": "RID,SITEID,VISCODE,EXAMDATE,MMSCORE\n2,2,bl,11/30/2006,29\n2,2,m18,05/30/2008,27\n3,2,bl,01/02/2007,0\n",
    "apoeres": "RID,SITEID,VISCODE,APTESTDT,APGEN1,APGEN2\n2,2,bl,-4,3,4\n3,2,bl,-4,4,2\n",
}


def study(folder: Path, **tables: str) -> Path:
    for name, text in (TABLES | tables).items():
        if text:
            (folder / f"aibl_{name}_01-Jun-2018.csv").write_text(text, encoding="utf-8")
    return folder


def read(folder: Path) -> tuple[list[Visit], list[RejectedRow]]:
    out = list(read_aibl(folder))
    return [one for one in out if isinstance(one, Visit)], [one for one in out if isinstance(one, RejectedRow)]


def test_typical_rows(tmp_path: Path) -> None:
    visits, rejected = read(study(tmp_path))
    assert rejected == []
    assert visits[0] == Visit(
        patient_id="AIBL-0002",
        visit_id="bl",
        cohort="AIBL",
        label="NC",
        label_source="DXCURREN",
        age_years=71,
        sex="male",
        mmse=29,
        apoe4_copies=1,
        source="aibl_pdxconv_01-Jun-2018.csv:2",
    )
    assert [(visit.patient_id, visit.visit_id, visit.label) for visit in visits[1:]] == [
        ("AIBL-0002", "m18", "MCI"),
        ("AIBL-0003", "bl", "AD"),
    ]
    assert [visit.years_from_baseline for visit in visits] == [0, pytest.approx(547 / 365.25), 0]


def test_a_score_of_zero_is_a_score_and_e4_is_counted_over_the_pair(tmp_path: Path) -> None:
    visits, _ = read(study(tmp_path))
    assert [visit.mmse for visit in visits] == [29, 27, 0]
    assert [visit.apoe4_copies for visit in visits] == [1, 1, 1]


def test_nothing_is_invented(tmp_path: Path) -> None:
    visits, _ = read(study(tmp_path))
    for visit in visits:
        assert (visit.education_years, visit.education_level, visit.marital_status) == (None, None, None)
        assert (visit.segmenter, visit.field_strength_t) == (None, None)
        assert visit.measures == ()


def test_age_is_a_difference_of_years(tmp_path: Path) -> None:
    visits, _ = read(study(tmp_path))
    assert [visit.age_years for visit in visits] == [71, 73, 79]


@pytest.mark.parametrize("missing", ["-4", "", "-1", "n/a", "-4.0"])
def test_every_missing_code_is_unknown(tmp_path: Path, missing: str) -> None:
    visits, rejected = read(
        study(
            tmp_path,
            ptdemog=f"RID,SITEID,VISCODE,PTGENDER,PTDOB\n2,2,bl,{missing},{missing}\n",
            mmse=f"RID,SITEID,VISCODE,EXAMDATE,MMSCORE\n2,2,bl,{missing},{missing}\n",
            apoeres=f"RID,SITEID,VISCODE,APGEN1,APGEN2\n2,2,bl,4,{missing}\n",
            pdxconv=f"RID,SITEID,VISCODE,DXCURREN\n2,2,bl,1\n2,2,m18,{missing}\n",
        )
    )
    assert [(v.visit_id, v.sex, v.age_years, v.mmse, v.apoe4_copies) for v in visits] == [
        ("bl", None, None, None, None)
    ]
    assert [row.reason for row in rejected] == ["no diagnosis of this visit", "no genotype"]


def test_visits_are_joined_by_subject_and_visit(tmp_path: Path) -> None:
    mmse = "RID,SITEID,VISCODE,EXAMDATE,MMSCORE\n3,2,m18,05/30/2008,17\n2,2,bl,11/30/2006,29\n"
    visits, rejected = read(study(tmp_path, mmse=mmse))
    assert [(visit.patient_id, visit.visit_id, visit.mmse) for visit in visits] == [
        ("AIBL-0002", "bl", 29),
        ("AIBL-0002", "m18", None),
        ("AIBL-0003", "bl", None),
    ]
    assert [(row.source, row.reason) for row in rejected] == [("aibl_mmse_01-Jun-2018.csv:2", NO_VISIT)]


def test_time_of_a_visit_without_a_date(tmp_path: Path) -> None:
    visits, _ = read(study(tmp_path, mmse="RID,VISCODE,EXAMDATE,MMSCORE\n2,bl,11/30/2006,29\n"))
    assert [visit.years_from_baseline for visit in visits] == [0, 1.5, 0]
    assert [visit.age_years for visit in visits] == [71, None, None]


def test_other_tables_date_the_visit_too(tmp_path: Path) -> None:
    visits, rejected = read(
        study(
            tmp_path,
            mmse="RID,VISCODE,EXAMDATE,MMSCORE\n2,bl,-4,29\n2,m18,05/30/2008,27\n",
            cdr="RID,VISCODE,EXAMDATE,CDGLOBAL\n2,bl,12/01/2005,0\n3,bl,01/02/2007,1\n",
            neurobat="RID,VISCODE,EXAMDATE,LIMMTOTAL\n2,bl,12/24/2009,12\n9,bl,12/24/2009,12\n",
        )
    )
    assert [visit.age_years for visit in visits] == [70, 73, 79]
    assert [(row.source, row.reason) for row in rejected] == [("aibl_neurobat_01-Jun-2018.csv:3", NO_VISIT)]


@pytest.mark.parametrize(
    ("at_15", "at_30", "tesla"),
    [("1", "0", 1.5), ("0", "1", 3.0), ("-4", "1.0", 3.0), ("1", "1", None), ("0", "0", None)],
)
def test_field_strength_is_that_of_the_table_with_the_scan(
    tmp_path: Path, at_15: str, at_30: str, tesla: float | None
) -> None:
    header = "RID,VISCODE,EXAMDATE,MMSMPRAGE\n2,bl,11/30/2006,"
    (visit, *others), _ = read(study(tmp_path, mrimeta=f"{header}{at_15}\n", mri3meta=f"{header}{at_30}\n"))
    assert visit.field_strength_t == tesla
    assert [other.field_strength_t for other in others] == [None, None]


@pytest.mark.parametrize(
    ("table", "text", "reason"),
    [
        ("pdxconv", "7,2,bl,7", "DXCURREN has an unknown code; known are 1, 2, 3"),
        ("pdxconv", "7,2,v1,1", "VISCODE is no visit of the study"),
        ("pdxconv", ",2,bl,1", "RID is missing"),
        ("ptdemog", "7,2,bl,3,/1935", "PTGENDER has an unknown code"),
        ("ptdemog", "7,2,bl,1,/35", "PTDOB is no month and year of birth"),
        ("ptdemog", "7,2,bl,1,/1935", NO_PERSON),
        ("mmse", "7,2,bl,30/11/2006,29", "EXAMDATE is no date"),
        ("mmse", "7,2,bl,11/30/2006,31", "MMSCORE is outside 0 to 30"),
        ("apoeres", "7,2,bl,-4,3,5", "APGEN2 has an unknown code"),
    ],
)
def test_a_bad_row_is_set_aside_alone(tmp_path: Path, table: str, text: str, reason: str) -> None:
    visits, (rejected,) = read(study(tmp_path, **{table: f"{TABLES[table]}{text}\n"}))
    assert len(visits) == 3
    assert rejected.reason.startswith(reason) and rejected.source.startswith(f"aibl_{table}_01-Jun-2018.csv:")
    assert not any(value in rejected.reason for value in ("/35", "2006", "31 ", "v1"))


def test_duplicates_and_contradictions(tmp_path: Path) -> None:
    more = TABLES["pdxconv"] + "2,2,bl,1\n3,2,bl,2\n"
    visits, rejected = read(study(tmp_path, pdxconv=more, ptdemog=TABLES["ptdemog"] + "2,2,m18,2,/1935\n"))
    assert [(visit.patient_id, visit.visit_id, visit.sex) for visit in visits] == [
        ("AIBL-0002", "bl", None),
        ("AIBL-0002", "m18", None),
    ]
    assert [row.reason for row in rejected if "pdxconv" in row.source] == [
        "another row of the same subject and visit is used",
        *["rows of the same subject and visit contradict each other"] * 2,
    ]
    assert [row.reason for row in rejected if "ptdemog" in row.source] == [
        *["rows of the same subject disagree on sex"] * 2,
        NO_PERSON,
    ]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("pdxconv", "DXCURREN"),
        ("pdxconv", "VISCODE"),
        ("ptdemog", "PTDOB"),
        ("mmse", "MMSCORE"),
        ("mmse", "EXAMDATE"),
        ("apoeres", "APGEN2"),
    ],
)
def test_a_renamed_column_is_named(tmp_path: Path, table: str, column: str) -> None:
    study(tmp_path, **{table: TABLES[table].replace(column, f"{column}_NEW")})
    with pytest.raises(StudyFileError, match=rf"aibl_{table}_01-Jun-2018\.csv: no column {column};"):
        read(tmp_path)


def test_columns_in_lower_case_and_separated_by_semicolons(tmp_path: Path) -> None:
    expected = read(study(tmp_path))
    changed = {name: text.lower().replace(",", ";") for name, text in TABLES.items()}
    assert read(study(tmp_path, **changed)) == expected


@pytest.mark.parametrize("table", ["pdxconv", "ptdemog", "mmse"])
def test_tables_that_must_be_there(tmp_path: Path, table: str) -> None:
    with pytest.raises(StudyFileError, match=rf"no aibl_{table}\.csv"):
        read(study(tmp_path, **{table: ""}))


def test_without_genotypes(tmp_path: Path) -> None:
    assert {visit.apoe4_copies for visit in read(study(tmp_path, apoeres=""))[0]} == {None}


def test_two_releases_are_refused(tmp_path: Path) -> None:
    (study(tmp_path) / "aibl_mmse_28-Apr-2015.csv").write_text(TABLES["mmse"], encoding="utf-8")
    with pytest.raises(StudyFileError, match=r"aibl_mmse_01-Jun-2018\.csv and aibl_mmse_28-Apr-2015\.csv"):
        read(tmp_path)
