"""Any table of visits: which column is which field, in which unit and with which codes, comes from the configuration.

CSV, Parquet and Excel are read row by row and never held as a whole; of each person the reader keeps in memory which
visits there were, the sex and an age.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clinical_reasoner.cohort.columns import (
    MISSING,
    MOST_COLUMNS,
    TOO_MANY_CELLS,
    StudyFileError,
    StudyRow,
    read_study_table,
)
from clinical_reasoner.cohort.fields import (
    Baselines,
    Earlier,
    build_visit,
    file_inside,
    read_age,
    read_fields,
    read_years,
    wanted_columns,
)
from clinical_reasoner.cohort.visits import RATINGS, RATIOS, REGIONS, SHAPES, Visit, measure, set_aside
from clinical_reasoner.config.columns import MeasureColumns, TableMapping
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import Measure, RejectedRow

ICV_MM3 = (0.9e6, 2.2e6)
"""Beyond it a total intracranial volume is a failed segmentation or another unit."""
_MM3 = {"mm3": 1.0, "cm3": 1000.0, "ml": 1000.0}
_HIGHEST_RATING = {"mta": 4.0}
_LARGEST_VOLUME_MM3 = 3e6
_LARGEST_WORKBOOK_BYTES = 2**30
"""Unpacked: a larger one is no table of visits, or made to fill the memory."""
_BATCH_ROWS = 4096
_UNKNOWN = MISSING | {"#n/a"}


def read_mapped(file: Path, mapping: TableMapping, cohort: str = "table") -> Iterator[Visit | RejectedRow]:
    """Visits of a CSV (or .tsv), Parquet or Excel table, and the rows that cannot be used with their reasons.

    Where visits are ordered by age, the file is read twice, as time counts from each person's first visit in it. Raises
    StudyFileError when the file, its header or a column of the mapping is not there or cannot be read, and
    UserError when the mapping contradicts itself or Excel support is not installed.
    """
    _check_measures(mapping)
    wanted = wanted_columns(mapping)
    for name in ("patient_id", "visit_id", "years_from_baseline", "image_path", "segmentation_path", "note"):
        column = getattr(mapping, name)
        if column is not None:
            wanted[name] = column.columns
    for name, parts in mapping.measures.items():
        wanted |= {f"{name} ({part})": (part,) for part in parts.columns}
    baselines, earlier = _baselines(file, wanted, mapping), Earlier()
    for row in _study_rows(file, wanted, mapping.sheet):
        try:
            yield earlier.check(_visit(row, mapping, cohort, baselines, file.parent))
        except ValueError as error:
            yield set_aside(row.place, str(error))


def _baselines(file: Path, wanted: Mapping[str, Sequence[str]], mapping: TableMapping) -> Baselines:
    baselines = Baselines()
    if mapping.visit_id is None or mapping.age_years is None:  # a person has one row, or ages tell nothing
        return baselines
    for row in _study_rows(file, wanted, mapping.sheet):
        try:
            age, exact = read_age(row, mapping.age_years)
            baselines.add(*_names(row, mapping), age if exact else None, _stated_years(row, mapping))
        except ValueError:
            continue  # said when the row is read again
    return baselines


def _names(row: StudyRow, mapping: TableMapping) -> tuple[str, str]:
    patient_id, visit_id = row.text("patient_id"), row.text("visit_id") if mapping.visit_id else "bl"
    if not patient_id or not visit_id:
        raise ValueError("patient_id is empty" if not patient_id else "visit_id is empty")
    return patient_id, visit_id


def _stated_years(row: StudyRow, mapping: TableMapping) -> float | None:
    time = mapping.years_from_baseline
    return None if time is None else read_years(row, "years_from_baseline", time.unit, (-5, 60), time.missing)


def _visit(row: StudyRow, mapping: TableMapping, cohort: str, baselines: Baselines, folder: Path) -> Visit:
    patient_id, visit_id = _names(row, mapping)
    fields = read_fields(row, mapping)
    age = None if fields.get("at_least") else fields["age_years"]
    for name in ("image_path", "segmentation_path"):
        text = row.text(name)
        fields[name] = None if text is None else file_inside(folder, folder / text)
    measures = tuple(
        found for name, parts in mapping.measures.items() if (found := _measure(row, name, parts)) is not None
    )
    return build_visit(
        patient_id=patient_id,
        visit_id=visit_id,
        cohort=cohort,
        years_from_baseline=baselines.years(patient_id, visit_id, age, _stated_years(row, mapping)),
        measures=measures,
        note=row.text("note"),
        segmenter=mapping.segmenter if measures or fields["segmentation_path"] else None,
        source=row.place,
        **fields,
    )


def _measure(row: StudyRow, name: str, parts: MeasureColumns) -> Measure | None:
    factor = _MM3.get(parts.unit, 1.0)
    highest = {"rating": _HIGHEST_RATING.get(name, 3.0), "1": 1.0, "mm": 100.0}.get(parts.unit, _LARGEST_VOLUME_MM3)
    known = [row.number(f"{name} ({part})", 0.0, highest / factor, parts.missing) for part in parts.columns]
    values = [value * factor for value in known if value is not None]
    if len(values) < len(parts.columns):
        return None
    value = {"sum": sum(values), "mean": sum(values) / len(values), "max": max(values)}[parts.combine]
    unit = "mm3" if parts.unit in _MM3 else parts.unit
    if name == "icv" and not ICV_MM3[0] <= value <= ICV_MM3[1]:
        raise ValueError(f"icv is outside {ICV_MM3[0] / 1e6:g} to {ICV_MM3[1] / 1e6:g} litres; is the unit right?")
    if unit == "mm3" and value == 0 and name != "wm_hypointensities":
        raise ValueError(f"{name} is 0 mm3")
    return measure(name, value, unit)


def _check_measures(mapping: TableMapping) -> None:
    for name, parts in mapping.measures.items():
        units = ("mm3", "cm3", "ml") if name in REGIONS else ("rating",) if name in RATINGS else ("1",)
        if name in (*REGIONS, *RATINGS, *SHAPES, *RATIOS) and parts.unit not in units:
            raise UserError(f"measures.{name}.unit: {parts.unit!r} does not fit; use {' or '.join(units)}")
        if name in REGIONS and parts.combine != "sum" and len(parts.columns) > 1:
            raise UserError(f"measures.{name}.combine: a region is the sum of its columns, not their {parts.combine}")
    for field in ("sex", "education_level", "marital_status", "apoe4_copies", "label"):
        column = getattr(mapping, field)
        unread = sorted(code for code in (column.codes if column else ()) if code.strip().lower() in MISSING)
        if unread:
            raise UserError(f"{field}.codes: {unread[0]!r} always means a missing value; write another code")


def _study_rows(file: Path, wanted: Mapping[str, Sequence[str]], sheet: str | None) -> Iterator[StudyRow]:
    ending = file.suffix.lower()
    if ending in (".csv", ".tsv", ".txt"):
        return read_study_table(file, wanted, tuple(wanted))
    if ending not in (".parquet", ".xlsx", ".xlsm"):
        raise StudyFileError(f"{file}: {ending or 'no'} ending; use .csv, .tsv, .parquet or .xlsx")
    if not file.is_file():
        raise StudyFileError(f"cohort: no file at {str(file)!r}")
    return _parquet_rows(file, wanted) if ending == ".parquet" else _excel_rows(file, wanted, sheet)


def _parquet_rows(file: Path, wanted: Mapping[str, Sequence[str]]) -> Iterator[StudyRow]:
    try:
        with pq.ParquetFile(file) as table:
            header = table.schema_arrow.names
            place = _places(file, header, wanted)
            names = sorted({header[index] for index in place.values()})
            line = 1
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=names):
                for cells in batch.to_pylist():
                    line += 1
                    yield _row(file, line, {name: cells[header[index]] for name, index in place.items()})
    except (pa.ArrowException, OSError) as error:
        raise StudyFileError(f"{file}: not readable as Parquet ({type(error).__name__})") from error


def _excel_rows(file: Path, wanted: Mapping[str, Sequence[str]], sheet: str | None) -> Iterator[StudyRow]:
    try:
        openpyxl: Any = import_module("openpyxl")
    except ImportError as error:
        fix = "pip install 'clinical-reasoner[excel]', or save the table as CSV"
        raise UserError(f"{file}: reading Excel needs the extra `excel`: {fix}") from error
    try:
        with zipfile.ZipFile(file) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > _LARGEST_WORKBOOK_BYTES:
                raise StudyFileError(f"{file}: more than 1 GiB unpacked; is it the right file?")
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        try:
            yield from _sheet_rows(file, book, wanted, sheet)
        finally:
            book.close()
    except UserError:
        raise
    except (
        zipfile.BadZipFile,
        KeyError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:  # SyntaxError: cut XML
        raise StudyFileError(f"{file}: not readable as Excel ({type(error).__name__})") from error


def _sheet_rows(file: Path, book: Any, wanted: Mapping[str, Sequence[str]], sheet: str | None) -> Iterator[StudyRow]:
    if sheet is not None and sheet not in book.sheetnames:
        raise StudyFileError(f"{file}: no sheet {sheet!r}; it has {', '.join(book.sheetnames)}")
    page = book[sheet or book.sheetnames[0]]
    page.reset_dimensions()  # some programs write a wrong extent, which would cut the table
    rows = page.iter_rows(values_only=True)
    header = [_text(cell) for cell in next(rows, ())]
    place = _places(file, header, wanted)
    named = max((index for index, name in enumerate(header, start=1) if name), default=0)
    for line, cells in enumerate(rows, start=2):
        if any(cell is not None for cell in cells):
            known = {name: cells[index] if index < len(cells) else None for name, index in place.items()}
            moved = any(_text(cell) for cell in cells[named:])
            yield _row(file, line, known, TOO_MANY_CELLS if moved else None)


def _places(file: Path, header: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> dict[str, int]:
    if len(header) > MOST_COLUMNS:
        raise StudyFileError(f"{file}: {len(header)} columns, more than {MOST_COLUMNS}; is it the right file?")
    plain = [name.strip().lower() for name in header]
    place = {}
    for name, known in wanted.items():
        found = [one.lower() for one in known if one.lower() in plain]
        if not found:
            shown = ", ".join(header[:12]) + ", ..." * (len(header) > 12)
            raise StudyFileError(f"{file}: no column {' or '.join(known)}; it has {shown}")
        if plain.count(found[0]) > 1:
            raise StudyFileError(f"{file}: column {found[0]!r} stands there twice")
        place[name] = plain.index(found[0])
    return place


def _row(file: Path, line: int, cells: Mapping[str, Any], problem: str | None = None) -> StudyRow:
    texts = {name: _text(cell) for name, cell in cells.items()}
    known = {name: None if text.lower() in _UNKNOWN else text for name, text in texts.items()}
    return StudyRow(f"{file.name}:{line}", known, problem)


def _text(cell: Any) -> str:
    """A cell as a CSV would hold it; whole numbers have no decimals, as an id column with gaps comes as floats."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell).strip()
