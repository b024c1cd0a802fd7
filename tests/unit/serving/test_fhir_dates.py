"""FHIR's dates: which are dates, which of several is the last, and the age on a day."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from clinical_reasoner.serving.fhir_dates import When, age_at, latest, read_when


def when(text: str) -> When:
    read = read_when(text)
    assert read is not None
    return read


@pytest.mark.parametrize(
    ("text", "day", "exact"),
    [
        ("2020", date(2020, 7, 1), False),
        ("2020-02", date(2020, 2, 15), False),
        ("2020-02-29", date(2020, 2, 29), True),
        ("2020-02-29T23:30:00-05:00", date(2020, 2, 29), True),
        ("2020-02-29T23:30:00.123456789Z", date(2020, 2, 29), True),
    ],
)
def test_dates(text: str, day: date, exact: bool) -> None:
    assert (when(text).day, when(text).exact) == (day, exact)


@pytest.mark.parametrize(
    "text",
    [
        "", "2020-13", "2021-02-29", "20200101", "2020-1-1", "0001-01-01T00:00:00+14:00", "9999-12-31", "1849",
        "2020-01-01T10:00", "2020-01-01T10:00:00", "2020-01-01T25:00:00Z", "2020-01-01T10:00:60Z", " 2020", "٢٠٢٠",
        2020, None, True, ["2020"],
    ],
)  # fmt: skip
def test_what_is_no_date(text: Any) -> None:
    assert read_when(text) is None


@pytest.mark.parametrize(
    ("times", "last"),
    [
        ([None], 0),
        (["2020"], 0),
        (["2020", "2021", "2019"], 1),
        (["2020-01-31", "2020-02"], 1),
        (["2020-03-01T10:00:00Z", "2020-03-01T10:00:01Z"], 1),
        (["2020-03-01T23:00:00-05:00", "2020-03-02T01:00:00Z"], 0),
        (["2020-03-01", "2020-03-01"], None),
        (["2020", "2020-03-01"], None),
        (["2020-03-01", "2020-03-01T10:00:00Z"], None),
        (["2020-03-01", None], None),
        ([None, None], None),
    ],
)
def test_the_last_of_several_is_certain_or_nobody(times: list[str | None], last: int | None) -> None:
    assert latest([read_when(text) for text in times]) == last


@pytest.mark.parametrize(
    ("birth", "study", "age"),
    [
        ("1950-03-01", "2020-02-29", 69.99),
        ("1950-03-01", "2020-03-01", 70.0),
        ("1952-02-29", "2021-02-28", 68.99),
        ("1952-02-29", "2021-03-01", 69.0),
        ("1950", "2020-07-01", 70.0),
        ("1950-05", "2020-05-14", 69.99),
        ("2020-03-01", "2020-03-01", 0.0),
        ("2020-03-02", "2020-03-01", None),
    ],
)
def test_age_in_completed_years(birth: str, study: str, age: float | None) -> None:
    assert age_at(when(birth), when(study)) == age


def test_an_age_never_reaches_the_next_birthday_early() -> None:
    birth = when("1951-11-02")
    for month in range(1, 13):
        for day in range(1, 29):
            age = age_at(birth, when(f"2026-{month:02}-{day:02}"))
            assert age is not None
            assert int(age) == (75 if (month, day) >= (11, 2) else 74)
