"""Study tables as text: no row is lost, and none is read with its values in other columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.columns import TOO_MANY_CELLS, StudyFileError, StudyRow, read_study_table

COLUMNS = {name: (name,) for name in ("ID", "MMSE", "CDR", "note")}


def read(folder: Path, *lines: str, header: str = "ID,MMSE,CDR,note") -> list[StudyRow]:
    file = folder / "table.csv"
    file.write_bytes("\n".join([header, *lines]).encode() + b"\n")
    return list(read_study_table(file, COLUMNS, ("ID",)))


def refused(folder: Path, *lines: str, header: str = "ID,MMSE,CDR,note") -> str:
    with pytest.raises(StudyFileError) as error:
        read(folder, *lines, header=header)
    assert "secret" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        # Never closed: all rows below are in it.
        (['P1,29,0,"secret', "P2,20,1,", "P3,25,0.5,"], 2),
        (["P1,29,0,", '"P2,20,1,', "P3,25,0.5,secret"], 3),
        # Closed by a quote of a later row, in the same column, in a later and in an earlier one.
        (['P1,29,0,"secret', "P2,20,1,", 'P3,25,0.5,secret"'], 2),
        (["P0,30,0,", '"P1,29,0,secret', 'P2",20,1,'], 3),
        (['P1,"29,0,', "P2,20,1,", 'P3,25",0.5,'], 2),
        (['P1,"29,0,', "P2,20,1,", 'P3,25,0.5"'], 2),
        (['P1,29,0,"secret', 'P2",20,1,secret'], 2),
        # Closed by the opening quote of a text.
        (['P1,29,0,"secret', 'P2,20,1,"secret"'], 2),
        (["", 'P1,29,0,"secret" or not'], 3),
    ],
)
def test_stray_quote_takes_no_row_in(tmp_path: Path, lines: list[str], line: int) -> None:
    assert f"table.csv, line {line}: " in refused(tmp_path, *lines)


def test_stray_quote_in_the_header(tmp_path: Path) -> None:
    for header in ('ID,"MMSE,CDR,note', '"ID,MMSE,CDR,note'):
        assert "table.csv, line 1: " in refused(tmp_path, 'P1,29,0,"secret"', header=header)
    assert "table.csv, line 1: " in refused(tmp_path, 'P1",29,0,secret', header='ID,MMSE,CDR,"note')


def test_line_breaks_and_quotes_of_a_note_are_kept(tmp_path: Path) -> None:
    note = '"tired, slow, ""lost"" her keys\n\nlives alone, eats well\nno, or, little, sleep\r\nback in May"'
    rows = read(tmp_path, f"P1,29,0,{note}", "P2,20,1,5'6\" tall")
    assert [row.place for row in rows] == ["table.csv:2", "table.csv:7"], "the line on which it begins"
    assert (rows[0].text("note") or "").startswith('tired, slow, "lost" her keys\n\nlives')
    assert rows[1].text("note") == "5'6\" tall"


@pytest.mark.parametrize("line", ["P1,5,29,0,secret", "P1,29,0,secret,x", "P1,29,0,,,x", "P1,29,0,0,,"])
def test_row_with_more_cells_than_columns_tells_nothing(tmp_path: Path, line: str) -> None:
    """`5,29` may be a decimal comma: read by place, the MMSE is 5."""
    first, second = read(tmp_path, line, "P2,20,1,", header="ID,MMSE,CDR")
    assert (first.place, first.problem, second.problem) == ("table.csv:2", TOO_MANY_CELLS, None)
    for ask in (
        lambda: first.text("ID"),
        lambda: first.number("MMSE", 0, 30),
        lambda: first.code("CDR", {"0": "NC"}),
        lambda: first.text("a column that is not there"),
    ):
        with pytest.raises(ValueError, match=TOO_MANY_CELLS):
            ask()


def test_cells_of_a_last_column_without_a_name_have_moved_there(tmp_path: Path) -> None:
    moved, whole = read(tmp_path, "P1,5,29,0", "P2,29,0,", header="ID,MMSE,CDR,")
    assert (moved.problem, whole.problem) == (TOO_MANY_CELLS, None)


@pytest.mark.parametrize("line", ["P1,29,0,,,", "P1,29,0, , ", "P1,29,0", "P1,29,0,x"])
def test_empty_cells_more_or_less_make_no_difference(tmp_path: Path, line: str) -> None:
    (row,) = read(tmp_path, line)
    assert (row.text("ID"), row.number("MMSE", 0, 30), row.problem) == ("P1", 29, None)


def test_first_column_without_a_name(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(",x,\n7,8,\n", encoding="utf-8")
    (row,) = read_study_table(file, {"index": ("number", ""), "x": ("x",)}, ("index", "x"))
    assert (row.text("index"), row.text("x")) == ("7", "8")
    with pytest.raises(StudyFileError, match="no column ID; it has , x"):
        read(tmp_path, header=",x,")
