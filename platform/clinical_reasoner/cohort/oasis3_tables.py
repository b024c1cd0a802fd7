"""The tables of an OASIS-3 download: where they lie, whose and which day's a row is, and joins by subject and day.

A day counts from the person's entry into the study, so days of two people have nothing to do with each other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from clinical_reasoner.cohort.cdr import whole_number
from clinical_reasoner.cohort.columns import StudyFileError, StudyRow
from clinical_reasoner.cohort.visits import set_aside
from clinical_reasoner.records import RejectedRow

T = TypeVar("T")
Key = tuple[str, int]
"""Subject and day."""
DAYS = (-1826, 20_000)
"""Up to 5 years before entry and 54 after. The release has days from -101 on, and a typing error at -39520."""
_SUBJECT = re.compile(r"OAS3\d{4}", re.IGNORECASE | re.ASCII)
_SESSION = re.compile(r"(OAS3\d{4})_\w+_d(-?\d{1,5})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Dated(Generic[T]):
    """A row and what it says."""

    row: StudyRow
    value: T


ByDay = dict[str, dict[int, Dated[T]]]
"""Subject -> day -> row."""


def find_files(folder: Path, names: Sequence[str], needed: Sequence[str]) -> dict[str, Path]:
    """Table -> file, in the folder or anywhere below it; links to folders are not followed.

    Raises StudyFileError for a needed table that is missing, one that is there twice, a link that leaves the folder.
    """
    if not folder.is_dir():
        raise StudyFileError(f"cohort: no folder at {str(folder)!r}; give the one that holds {needed[0]}.csv")
    tables = {f"{name}.csv".lower(): name for name in names}
    found: dict[str, Path] = {}
    for parent, _, entries in os.walk(folder):
        for entry in entries:
            # A browser adds a number to a second download.
            table = tables.get(re.sub(r" ?\(\d+\)(?=\.csv$)", "", entry.lower()))
            if table is None:
                continue
            file = Path(parent, entry)
            if not file.resolve().is_relative_to(folder.resolve()):
                raise StudyFileError(f"{file}: a link that leaves the folder; put the file itself there")
            if found.setdefault(table, file) != file:
                raise StudyFileError(f"{folder}: {table}.csv is there twice, {file} is one of them; keep one")
    for table in needed:
        if table not in found:
            raise StudyFileError(f"{folder}: no {table}.csv in it or in a folder below it")
    return found


def read_dated(rows: Iterable[StudyRow], parse: Callable[[StudyRow], T], rejected: list[RejectedRow]) -> ByDay[T]:
    """Rows by subject and day, of several about one day the first. Those that cannot be used are added to `rejected`:
    `parse` raises ValueError, without any value of the patient."""
    dated: ByDay[T] = {}
    for row in rows:
        try:
            subject, day, value = subject_of(row), day_of(row), parse(row)
            if day in dated.get(subject, {}):
                raise ValueError("the same subject and day as an earlier row")
        except ValueError as error:
            rejected.append(set_aside(row.place, str(error)))
        else:
            dated.setdefault(subject, {})[day] = Dated(row, value)
    return dated


def subject_of(row: StudyRow) -> str:
    """OASISID, `OAS3NNNN`. Raises ValueError for any other text."""
    subject = (row.text("subject") or "").upper()
    if not _SUBJECT.fullmatch(subject):
        raise ValueError("the subject is not of the form OAS3NNNN")
    return subject


def day_of(row: StudyRow) -> int:
    """Days since entry, from `days_to_visit` (`339`, `0339`) and `session` (`OAS30001_UDSb4_d0339`), or one of them.

    Raises ValueError where both are missing, do not agree, or are no day of this subject's.
    """
    stated = whole_number(row, "days_to_visit", *DAYS)
    session = row.text("session")
    if session is None:
        if stated is None:  # -1, a day that there is, is the code of a missing value as well
            raise ValueError("neither days_to_visit nor a session tells the day")
        return stated
    match = _SESSION.fullmatch(session)
    if not match or match[1].upper() != subject_of(row):
        raise ValueError("the session is not of the form OAS3NNNN_NAME_dNNNN, or another subject's")
    day = int(match[2])
    if not DAYS[0] <= day <= DAYS[1]:
        raise ValueError(f"the day of the session is outside {DAYS[0]} to {DAYS[1]}")
    if stated not in (None, day):
        raise ValueError("days_to_visit is not the day of the session")
    return day


def join_nearest(rows: ByDay[T], visits: ByDay[Any], max_days: int, rejected: list[RejectedRow]) -> dict[Key, T]:
    """(subject, day of a visit) -> what the row says that is nearest to it.

    Each row goes to the nearest visit of its own subject, at most `max_days` away and the earlier of two; of several
    rows that come to a visit the nearest is joined and the others are added to `rejected`. No row is joined twice.
    """
    joined: dict[Key, T] = {}
    for subject, days in rows.items():
        coming: dict[int, list[int]] = {}
        for day, dated in days.items():
            nearest = _nearest(day, visits.get(subject, ()))
            if nearest is None or abs(nearest - day) > max_days:
                near = f"within {max_days} days" if max_days else "on that day"
                rejected.append(set_aside(dated.row.place, f"no clinical visit of this person {near}"))
            else:
                coming.setdefault(nearest, []).append(day)
        for visit_day, candidates in coming.items():
            chosen = _nearest(visit_day, candidates)
            for day in candidates:
                if day == chosen:
                    joined[subject, visit_day] = days[day].value
                else:
                    rejected.append(set_aside(days[day].row.place, "another row is nearer to the same visit"))
    return joined


def _nearest(day: int, days: Iterable[int]) -> int | None:
    return min(days, key=lambda one: (abs(one - day), one), default=None)
