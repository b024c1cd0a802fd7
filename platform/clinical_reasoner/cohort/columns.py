"""Study tables as text: columns by name, whatever their order, case or release; values as written, or None."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from clinical_reasoner.errors import UserError

MOST_COLUMNS = 10_000
"""A study table has hundreds; one with more is something else."""
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", ".", "-1", "-4"})
"""Lower-case texts that mean a missing value in every study read here; a reader adds its own codes."""
TOO_MANY_CELLS = "more cells than columns: a decimal comma, or a separator in a text without quotes"
_MEND = "close the quote, or double one that belongs to a text"
_STRAY_QUOTE = f"a quote takes in line breaks and what looks like another row; {_MEND}"
_DELIMITERS = (",", "\t", ";")


class StudyFileError(UserError):
    """A study file cannot be used as a whole; the message names file, column and what was expected."""


@dataclass(frozen=True)
class StudyRow:
    """One line of a study table."""

    place: str
    """File name and line, for messages and the rejected table."""
    values: Mapping[str, str | None]
    """Reader's name of a column -> text as written, stripped; None when missing. A column that this release lacks is
    missing in every row."""
    problem: str | None = None
    """Why no value of the line can be trusted; None where they can."""

    def text(self, name: str) -> str | None:
        """A value as written. Raises ValueError where the line has a `problem`: whatever a reader asks first sets the
        line aside."""
        if self.problem is not None:
            raise ValueError(self.problem)
        return self.values.get(name)

    def number(self, name: str, low: float, high: float, missing: Sequence[float] = ()) -> float | None:
        """A number in [low, high]; None when missing or one of the `missing` codes. Raises ValueError that names the
        column, never the value."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(f"{name} is not a number") from error
        if value in missing:
            return None
        if not low <= value <= high:  # NaN too
            raise ValueError(f"{name} is outside {low:g} to {high:g}")
        return value

    def code(self, name: str, codes: Mapping[str, str], missing: Sequence[str] = ()) -> str | None:
        """What a code stands for; `1` and `1.0` are the same code, case does not matter. Raises ValueError that names
        the column and the known codes when it is a new one."""
        text = self.text(name)
        if text is None:
            return None
        plain = _plain(text)
        if plain in {_plain(code) for code in missing}:
            return None
        for code, meaning in codes.items():
            if _plain(code) == plain:
                return meaning
        raise ValueError(f"{name} has an unknown code; known are {', '.join(codes)}")


def read_study_table(
    file: Path, columns: Mapping[str, Sequence[str]], required: Sequence[str], missing: Sequence[str] = ()
) -> Iterator[StudyRow]:
    """Rows of a CSV (or tab- or semicolon-separated) table; those with more cells than the header have a `problem`, as
    their values have moved to other columns.

    `columns` maps the reader's name of a column to the names that releases give it (any case; an empty one is a first
    column without a name); those of `required` must be there. Raises StudyFileError for a file, header or encoding that
    cannot be used, and for quotes that would make one row of several.
    """
    if not file.is_file():
        raise StudyFileError(f"cohort: no file at {str(file)!r}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield from _rows(stream, file, columns, required, MISSING | {_plain(code) for code in missing})
    except UnicodeDecodeError as error:
        raise StudyFileError(f"{file}: not UTF-8; save it again as UTF-8") from error


def _rows(
    stream: Iterator[str],
    file: Path,
    columns: Mapping[str, Sequence[str]],
    required: Sequence[str],
    missing: frozenset[str],
) -> Iterator[StudyRow]:
    first = next(stream, "")
    delimiter = max(_DELIMITERS, key=first.count)
    records = _records(chain([first], stream), file, delimiter)
    header = [name.strip() for name in next(records, (1, []))[1]]
    if len(header) > MOST_COLUMNS:
        raise StudyFileError(f"{file}: {len(header)} columns, more than {MOST_COLUMNS}; is it the right file?")
    place = _places(file, header, columns, required)
    named = max((index for index, name in enumerate(header, start=1) if name), default=0)
    for line, cells in records:
        if not any(cell.strip() for cell in cells):
            continue
        values = {
            name: None if index >= len(cells) or _plain(cells[index]) in missing else cells[index].strip()
            for name, index in place.items()
        }
        moved = any(cell.strip() for cell in cells[named:])
        yield StudyRow(f"{file.name}:{line}", values, TOO_MANY_CELLS if moved else None)


def _records(lines: Iterable[str], file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of the header and each row.

    Strict, as else a quote that is not closed takes in all rows up to the next quote, or to the end of the file. Raises
    StudyFileError, without any cell, where that may have happened.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    width = 0
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise StudyFileError(f"{file}, line {line}: {error}; {_MEND}") from error
        if reader.line_num > line and (line == 1 or _of_several_rows(cells, width, delimiter)):
            raise StudyFileError(f"{file}, line {line}: {_STRAY_QUOTE}")
        width = width or len(cells)
        yield line, cells


def _of_several_rows(cells: Sequence[str], width: int, delimiter: str) -> bool:
    """Whether a row over several lines looks like rows that two stray quotes hold together, and not like one with line
    breaks in a note: the number of cells is wrong, or a cell begins with the rest of a row and ends with the start of
    another."""
    if len(cells) < width or any(cell.strip() for cell in cells[width:]):
        return True
    parts = ((index, re.split(r"\r\n|\r|\n", cell)) for index, cell in enumerate(cells))
    return any(
        len(lines) > 1 and lines[0].count(delimiter) >= width - 1 - index and lines[-1].count(delimiter) >= index
        for index, lines in parts
    )


def _places(
    file: Path, header: Sequence[str], columns: Mapping[str, Sequence[str]], required: Sequence[str]
) -> dict[str, int]:
    by_name: dict[str, int] = {}
    for index, name in enumerate(header):
        if (name or index == 0) and by_name.setdefault(name.lower(), index) != index:
            raise StudyFileError(f"{file}: column {name!r} stands there twice")
    place = {}
    for name, known in columns.items():
        found = [by_name[one.lower()] for one in known if one.lower() in by_name]
        if found:
            place[name] = found[0]
        elif name in required:
            named = " or ".join(filter(None, known))
            shown = ", ".join(header[:12]) + ", ..." * (len(header) > 12)
            raise StudyFileError(f"{file}: no column {named}; it has {shown}")
    return place


def _plain(text: str) -> str:
    """Lower case, and whole numbers without their decimals, as pandas and R write codes."""
    plain = text.strip().lower()
    try:
        number = float(plain)
    except ValueError:
        return plain
    return str(int(number)) if number.is_integer() else plain
