"""Studies of several tables: which files they are, and which of several rows about one visit or person is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.columns import StudyFileError, StudyRow
from clinical_reasoner.cohort.joins import (
    NO_PERSON,
    NO_VISIT,
    Entry,
    Facts,
    Key,
    best_entries,
    find_table,
    find_tables,
    known,
    left_over,
    left_over_people,
    people_of,
    read_rows,
    read_rows_if_there,
)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("RID\n1\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "MMSE.csv",
        "mmse.CSV",
        "MMSE_05Mar2024.csv",
        "MMSE_5mar2024.csv",
        "MMSE_01-Jun-2018.csv",
        "All_Subjects_MMSE_20May2026.csv",
        "MMSE (1).csv",
        "MMSE_11_08_19_20Nov2023.csv",
    ],
)
def test_a_table_is_found_by_pattern(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "MMSE_DICT.csv", "MMSE2.csv", "RMT_MMSE.csv", "MMSE.csv.bak", "MMSE.xlsx")
    assert find_table(tmp_path, "MMSE") == tmp_path / name


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    assert find_table(tmp_path, "MMSE") is None
    assert list(read_rows_if_there(tmp_path, ("MMSE",), ("RID",), ("RID",))) == []
    with pytest.raises(StudyFileError, match=r"no MMSE\.csv, nor one with a date"):
        list(read_rows(tmp_path, ("MMSE",), ("RID",), ("RID",)))


@pytest.mark.parametrize(
    ("first", "second"),
    [("MMSE_05Mar2024.csv", "MMSE_15Jul2023.csv"), ("MMSE.csv", "MMSE_15Jul2023.csv"), ("MMSE.csv", "MMSE (1).csv")],
)
def test_two_releases_are_refused_by_name(tmp_path: Path, first: str, second: str) -> None:
    touch(tmp_path, first, second)
    with pytest.raises(StudyFileError) as error:
        find_table(tmp_path, "MMSE")
    assert first in str(error.value) and second in str(error.value)


def test_two_names_of_one_table_are_two_releases(tmp_path: Path) -> None:
    touch(tmp_path, "DXSUM_05Mar2024.csv", "DXSUM_PDXCONV_ADNIALL.csv")
    with pytest.raises(StudyFileError, match="two releases of one table"):
        find_table(tmp_path, "DXSUM", "DXSUM_PDXCONV_ADNIALL")


def test_tables_of_one_family(tmp_path: Path) -> None:
    touch(tmp_path, "UCSFFSX_11_02_15.csv", "UCSFFSX51_11_08_19.csv")
    assert set(find_tables(tmp_path, r"ucsffsx\d*")) == {"UCSFFSX", "UCSFFSX51"}


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder, outside = tmp_path / "study", tmp_path / "outside"
    for place in (folder, outside):
        place.mkdir()
    touch(outside, "MMSE.csv")
    (folder / "MMSE.csv").symlink_to(outside / "MMSE.csv")
    with pytest.raises(StudyFileError, match="a link that leaves the folder"):
        find_table(folder, "MMSE")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="no folder at"):
        find_table(touch(tmp_path, "MMSE.csv") / "MMSE.csv", "MMSE")


def test_one_of_several_columns_must_be_there(tmp_path: Path) -> None:
    touch(tmp_path, "MMSE.csv")
    with pytest.raises(StudyFileError, match=r"MMSE\.csv: no column VISCODE or VISCODE2"):
        list(read_rows(tmp_path, ("MMSE",), ("RID", "VISCODE", "VISCODE2"), ("RID",), ("VISCODE", "VISCODE2")))


def entry(row: StudyRow) -> tuple[Key, Entry[str]]:
    subject, visit, rank, value = (row.text("text") or "").split()
    if value == "bad":
        raise ValueError("unreadable")
    return (int(subject), visit), Entry(row.place, value, (int(rank),), value)


def lines(*texts: str) -> list[StudyRow]:
    return [StudyRow(f"t.csv:{line}", {"text": text}) for line, text in enumerate(texts, start=2)]


def test_the_lowest_rank_is_used_and_every_other_row_is_set_aside() -> None:
    best, rejected = best_entries(
        lines("1 bl 1 a", "1 bl 0 b", "2 bl 0 c", "1 m06 0 d", "2 bl 0 c", "2 bl 0 bad"), entry
    )
    assert {key: one.value for key, one in best.items()} == {(1, "bl"): "b", (2, "bl"): "c", (1, "m06"): "d"}
    assert [(row.source, row.reason.split(" row")[0]) for row in rejected] == [
        ("t.csv:7", "unreadable"),
        ("t.csv:2", "another"),
        ("t.csv:6", "another"),
    ]


def test_rows_that_contradict_each_other_are_all_set_aside() -> None:
    best, rejected = best_entries(lines("1 bl 0 a", "1 bl 0 b", "1 bl 1 a", "2 bl 0 a"), entry)
    assert list(best) == [(2, "bl")]
    assert [row.source for row in rejected] == ["t.csv:2", "t.csv:3", "t.csv:4"]
    assert all("contradict" in row.reason for row in rejected)


def facts(row: StudyRow) -> tuple[int, Facts]:
    subject, sex, year = (row.text("text") or "").split()
    if sex == "bad":
        raise ValueError("unreadable")
    return int(subject), Facts(row.place, sex=None if sex == "-" else sex, birth_year=int(year) or None)


def test_people_who_are_said_to_be_two_are_set_aside() -> None:
    rows = lines("1 male 1935", "1 - 0", "2 male 1935", "2 female 1935", "3 male 1935", "3 male 1936", "4 bad 1")
    people, rejected = people_of(rows, facts)
    assert list(people) == [1]
    assert known(people[1], "sex") == "male"
    assert known(people[1], "education_years") is None
    assert [(row.source, row.reason.rpartition(" ")[2]) for row in rejected] == [
        ("t.csv:8", "unreadable"),
        ("t.csv:4", "sex"),
        ("t.csv:5", "sex"),
        ("t.csv:6", "birth_year"),
        ("t.csv:7", "birth_year"),
    ]


def test_what_belongs_to_no_visit_is_set_aside() -> None:
    table = {(1, "bl"): Entry("t.csv:2", 1), (1, "m06"): Entry("t.csv:3", 1)}
    people = {1: [Facts("p.csv:2")], 2: [Facts("p.csv:3"), Facts("p.csv:4")]}
    assert [(row.source, row.reason) for row in left_over((table,), {(1, "bl")})] == [("t.csv:3", NO_VISIT)]
    assert [(row.source, row.reason) for row in left_over_people((people,), {(1, "bl")})] == [
        ("p.csv:3", NO_PERSON),
        ("p.csv:4", NO_PERSON),
    ]
