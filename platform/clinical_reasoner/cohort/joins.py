"""Studies that come as several tables: the one release of each in a folder, and joins by (subject, visit) alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from clinical_reasoner.cohort.columns import StudyFileError, StudyRow, read_study_table
from clinical_reasoner.cohort.visits import set_aside
from clinical_reasoner.records import RejectedRow

T = TypeVar("T")
Key = tuple[int, str]
"""Number of the subject (RID) and visit id: the only key of a join."""

DAYS_PER_YEAR = 365.25
NO_VISIT = "no visit of this subject and visit code that can be used"
NO_PERSON = "no visit of this subject that can be used"
_RELEASE = r"(?:_\d{1,2})*(?:_\d{1,2}-?[a-z]{3}-?\d{4})?(?: ?\(\d+\))?\.csv"
"""What stands behind a table's name: `_11_08_19`, `_05Mar2024`, `_01-Jun-2018`; ` (1)` on a browser's second copy."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What one line says about one visit."""

    place: str
    value: T
    rank: tuple[float, ...] = ()
    """Of several lines about one visit the one of the lowest rank is used, then the first in the file."""
    claim: Hashable = None
    """Where lines of the lowest rank claim different things, all lines about the visit are set aside."""


@dataclass(frozen=True)
class Facts:
    """What one line says about a person; None is unknown."""

    place: str
    sex: str | None = None
    birth_year: int | None = None
    birth_month: int | None = None
    apoe4_copies: int | None = None
    months: int | None = None
    """When it was said, months from baseline; None where the line does not tell."""
    education_years: float | None = None
    marital_status: str | None = None


def find_tables(folder: Path, table: str) -> dict[str, Path]:
    """Table in upper case -> file, for the tables of a folder whose name matches the expression `table`: for `DXSUM`
    these are `DXSUM.csv`, `DXSUM_05Mar2024.csv` and `All_Subjects_DXSUM_05Mar2024.csv`.

    Raises StudyFileError for two releases of one table, a link that leaves the folder, and a folder that is none.
    """
    if not folder.is_dir():
        raise StudyFileError(f"cohort: no folder at {str(folder)!r}; give the folder that holds the study's tables")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        match = re.fullmatch(rf"(?:all_subjects_)?({table}){_RELEASE}", file.name, re.IGNORECASE)
        if not match:
            continue
        if not file.resolve().is_relative_to(folder.resolve()):
            raise StudyFileError(f"{file}: a link that leaves the folder; put the file itself there")
        earlier = found.setdefault(match[1].upper(), file)
        if earlier != file:
            raise StudyFileError(f"{folder}: {earlier.name} and {file.name} are two releases of one table; keep one")
    return found


def find_table(folder: Path, *names: str) -> Path | None:
    """The file of a table that releases call by one of `names`, or None. Raises StudyFileError as `find_tables`."""
    files = list(find_tables(folder, "|".join(names)).values())
    if len(files) > 1:
        raise StudyFileError(f"{folder}: {files[0].name} and {files[1].name} are two releases of one table; keep one")
    return files[0] if files else None


def read_rows(
    folder: Path, names: Sequence[str], columns: Sequence[str], required: Sequence[str], *one_of: Sequence[str]
) -> Iterator[StudyRow]:
    """Rows of a table that a folder must hold, by the study's own names of the columns (any case).

    Raises StudyFileError for a table that is not there or lacks a column of `required` or every column of a `one_of`.
    """
    file = find_table(folder, *names)
    if file is None:
        raise StudyFileError(f"{folder}: no {names[0]}.csv, nor one with a date in its name ({names[0]}_05Mar2024.csv)")
    rows = read_study_table(file, {name: (name,) for name in columns}, required)
    for row in rows:
        for choice in one_of:
            if not set(choice) & row.values.keys():
                raise StudyFileError(f"{file}: no column {' or '.join(choice)}")
        yield row


def read_rows_if_there(
    folder: Path, names: Sequence[str], columns: Sequence[str], required: Sequence[str], *one_of: Sequence[str]
) -> Iterator[StudyRow]:
    """As `read_rows`; nothing where the table is not there."""
    if find_table(folder, *names):
        yield from read_rows(folder, names, columns, required, *one_of)


def best_entries(
    rows: Iterable[StudyRow], parse: Callable[[StudyRow], tuple[Key, Entry[T]]]
) -> tuple[dict[Key, Entry[T]], list[RejectedRow]]:
    """The one entry of each visit, in the order of the file, and the lines that are not used. `parse` raises
    ValueError, without any value of the patient, for a line that cannot be read."""
    groups: dict[Key, list[Entry[T]]] = {}
    rejected = []
    for row in rows:
        try:
            key, entry = parse(row)
        except ValueError as error:
            rejected.append(set_aside(row.place, str(error)))
        else:
            groups.setdefault(key, []).append(entry)
    best = {}
    for key, entries in groups.items():
        first, *others = sorted(entries, key=lambda entry: entry.rank)
        if any(other.rank == first.rank and other.claim != first.claim for other in others):
            reason = "rows of the same subject and visit contradict each other"
            rejected.extend(set_aside(entry.place, reason) for entry in entries)
            continue
        best[key] = first
        reason = "another row of the same subject and visit is used"
        rejected.extend(set_aside(other.place, reason) for other in others)
    return best, rejected


def people_of(
    rows: Iterable[StudyRow], parse: Callable[[StudyRow], tuple[int, Facts]]
) -> tuple[dict[int, list[Facts]], list[RejectedRow]]:
    """What is known of each person, in the order of the file; all lines of a person are set aside where they disagree
    on what cannot change: sex, year of birth, genotype. `parse` raises ValueError as for `best_entries`."""
    people: dict[int, list[Facts]] = {}
    rejected = []
    for row in rows:
        try:
            number, facts = parse(row)
        except ValueError as error:
            rejected.append(set_aside(row.place, str(error)))
        else:
            people.setdefault(number, []).append(facts)
    for number, lines in list(people.items()):
        for name in ("sex", "birth_year", "apoe4_copies"):
            if len({getattr(facts, name) for facts in lines} - {None}) > 1:
                reason = f"rows of the same subject disagree on {name}"
                rejected.extend(set_aside(facts.place, reason) for facts in people.pop(number))
                break
    return people, rejected


def known(lines: Iterable[Facts], name: str) -> Any:
    """The first known value of a fact, or None."""
    return next((value for facts in lines if (value := getattr(facts, name)) is not None), None)


def left_over(tables: Iterable[dict[Key, Entry[Any]]], used: set[Key]) -> Iterator[RejectedRow]:
    """The lines of joined tables that belong to no visit."""
    for table in tables:
        yield from (set_aside(entry.place, NO_VISIT) for key, entry in table.items() if key not in used)


def left_over_people(tables: Iterable[dict[int, list[Facts]]], used: set[Key]) -> Iterator[RejectedRow]:
    """The lines about people who have no visit."""
    numbers = {number for number, _ in used}
    for table in tables:
        for number, lines in table.items():
            if number not in numbers:
                yield from (set_aside(facts.place, NO_PERSON) for facts in lines)
