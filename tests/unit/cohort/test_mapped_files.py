"""The generic table reader on Parquet and Excel: as on CSV."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from clinical_reasoner.cohort.columns import TOO_MANY_CELLS, StudyFileError
from clinical_reasoner.config.columns import TableMapping
from clinical_reasoner.errors import UserError
from tests.unit.cohort.test_mapped import BY_AGE, TYPED, load, read


def typed() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Case": [1.0, 2.5, None, 4.0],
            "Wave": ["bl", "bl", "bl", "bl"],
            "AGE": [71.0, None, 73.0, 74.5],
            "MMS": [29, 24, 20, 31],
            "Sex": ["F", "M", "F", None],
        }
    )


def check_typed(file: Path, mapping: TableMapping) -> None:
    visits, rejected = read(file, mapping)
    assert [(one.patient_id, one.age_years, one.mmse, one.sex) for one in visits] == [
        ("1", 71.0, 29, "female"),
        ("2.5", None, 24, "male"),
    ]
    assert [(row.source, row.reason) for row in rejected] == [
        (f"{file.name}:4", "patient_id is empty"),
        (f"{file.name}:5", "mmse is outside 0 to 30"),
    ]


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    file = tmp_path / "clinic.parquet"
    typed().to_parquet(file)
    check_typed(file, load(tmp_path, TYPED))
    with pytest.raises(StudyFileError, match=r"clinic\.parquet: no column weight; it has Case, Wave"):
        read(file, load(tmp_path, TYPED + "education_years: {columns: [weight]}"))
    twice = tmp_path / "twice.parquet"
    pd.DataFrame({"id": ["a"], "ID": ["b"]}).to_parquet(twice)
    with pytest.raises(StudyFileError, match=r"column 'id' stands there twice"):
        read(twice, load(tmp_path, "patient_id: {columns: [id]}"))


def test_excel_is_read_like_csv(tmp_path: Path) -> None:
    file = tmp_path / "clinic.xlsx"
    with pd.ExcelWriter(file) as book:
        pd.DataFrame({"note": ["nothing here"]}).to_excel(book, sheet_name="readme", index=False)
        typed().to_excel(book, sheet_name="visits", index=False)
    check_typed(file, load(tmp_path, TYPED + "sheet: visits"))
    with pytest.raises(StudyFileError, match=r"no column age; it has note"):
        read(file, load(tmp_path, TYPED))
    with pytest.raises(StudyFileError, match=r"no sheet 'data'; it has readme, visits"):
        read(file, load(tmp_path, TYPED + "sheet: data"))


def test_cells_of_excel_beyond_its_columns_have_moved_there(tmp_path: Path) -> None:
    """As of a CSV with decimal commas that was opened in Excel."""
    file = tmp_path / "clinic.xlsx"
    rows = [["id", "age", "mmse", None], ["a", 70, 5, 29], ["b", 71, 28, None]]
    pd.DataFrame(rows).to_excel(file, index=False, header=False)
    visits, (rejected,) = read(file, load(tmp_path, "patient_id: {columns: [id]}\nmmse: {columns: [mmse]}"))
    assert [one.patient_id for one in visits] == ["b"]
    assert (rejected.source, rejected.reason) == ("clinic.xlsx:2", TOO_MANY_CELLS)


def test_excel_without_its_extra_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)  # as if it were not installed
    (tmp_path / "clinic.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"extra `excel`: pip install 'clinical-reasoner\[excel\]'"):
        read(tmp_path / "clinic.xlsx", load(tmp_path, TYPED))


def test_workbook_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "clinic.xlsx"
    file.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(StudyFileError, match="not readable as Excel"):
        read(file, load(tmp_path, TYPED))
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("nothing.xml", "<a/>")
    with pytest.raises(StudyFileError, match="not readable as Excel"):
        read(file, load(tmp_path, TYPED))


def test_order_of_rows_makes_no_difference_in_parquet_and_excel(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "a"], "visit": ["w3", "w1"], "age": [80, 70]})
    frame.to_parquet(tmp_path / "clinic.parquet")
    frame.to_excel(tmp_path / "clinic.xlsx", index=False)
    for file in (tmp_path / "clinic.parquet", tmp_path / "clinic.xlsx"):
        visits, rejected = read(file, load(tmp_path, BY_AGE))
        assert rejected == [] and [one.years_from_baseline for one in visits] == [10.0, 0.0]
