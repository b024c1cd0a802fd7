"""FHIR's dates, which may be a year or a month only: their order, and an age in years."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import floor

_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_YEARS = (1850, 2200)
"""Other years are mistakes, and would overflow."""


@dataclass(frozen=True)
class When:
    """A point in time, as exactly as it was written."""

    text: str
    first: datetime
    last: datetime
    """The stretch of time that it may lie in, in UTC; a date without a time of day is taken as a day in UTC."""
    day: date
    """The day as written, in the zone of whoever wrote it; the middle of a year or month."""
    exact: bool
    """Whether the day is known."""


def read_when(text: object) -> When | None:
    """A FHIR date, dateTime or instant; None for anything else, and for years outside 1850 to 2200."""
    if not isinstance(text, str) or not text.isascii():
        return None
    try:
        if _TIME.fullmatch(text):
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
            when = When(text, moment.astimezone(UTC), moment.astimezone(UTC), moment.date(), True)
        elif (parts := _DATE.fullmatch(text)) is not None:
            when = _of_date(text, *parts.groups())
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return when if _YEARS[0] <= when.day.year <= _YEARS[1] else None


def latest(times: Sequence[When | None]) -> int | None:
    """Index of the one that is certainly the last; None where two may be it, or one of several has no time."""
    if len(times) == 1:
        return 0
    known = [when for when in times if when is not None]
    if len(known) < len(times):
        return None
    order = sorted(range(len(known)), key=lambda index: known[index].first)
    newest = known[order[-1]]
    return order[-1] if all(known[index].last < newest.first for index in order[:-1]) else None


def age_at(birth: When, study: When) -> float | None:
    """Age in years, two decimals rounded down, so that its whole part is the age in completed years; None where the
    birth lies after the study. A year alone stands for its first of July, a month for its 15th."""
    born, day = birth.day, study.day
    if day < born:
        return None
    years = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
    since = (day - _birthday(born, born.year + years)).days
    return floor((years + since / 366) * 100) / 100


def _of_date(text: str, year: str, month: str | None, day: str | None) -> When:
    first = date(int(year), int(month or 1), int(day or 1))
    if day is not None:
        last = middle = first
    elif month is not None:
        last = first.replace(day=monthrange(first.year, first.month)[1])
        middle = first.replace(day=15)
    else:
        last, middle = first.replace(month=12, day=31), first.replace(month=7)
    end = datetime.combine(last, time(), UTC) + timedelta(days=1) - timedelta(microseconds=1)
    return When(text, datetime.combine(first, time(), UTC), end, middle, day is not None)


def _birthday(born: date, year: int) -> date:
    """Who was born on 29 February is a year older on 1 March of other years."""
    if (born.month, born.day) == (2, 29) and monthrange(year, 2)[1] == 28:
        return date(year, 3, 1)
    return born.replace(year=year)
