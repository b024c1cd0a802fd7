"""Visits and people of a cohort, counted by diagnosis, sex, age band and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.evaluation.small_cells import Count, Counts, hide_small
from clinical_reasoner.records import Split

UNKNOWN = "unknown"
NO_LABEL = "no diagnosis"
"""Column of the visits whose label is not known, or is none of the task's."""
AGE_BANDS: dict[str, float] = {"under 65": 65.0, "65-74": 75.0, "75-84": 85.0, "85 and older": np.inf}
"""Age at the visit -> first age above the band, years."""
VISITS_PER_PERSON: dict[str, float] = {"1": 2, "2": 3, "3": 4, "4": 5, "5-9": 10, "10 or more": np.inf}


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CountRow(Frozen):
    name: str
    counts: tuple[Count, ...]
    """One for each label of the summary, in its order."""
    total: int = Field(ge=0)


class CountGroup(Frozen):
    title: str
    rows: tuple[CountRow, ...]


class Tally(Frozen):
    name: str
    count: int = Field(ge=0)


@dataclass(frozen=True)
class Visits:
    """Place of each visit's label among the columns, and of its person among the people."""

    labels: Counts
    people: Counts
    columns: tuple[str, ...]

    def tally(self, places: Counts, size: int, chosen: Counts | None = None) -> tuple[Counts, Counts]:
        """Visits, and distinct people, by place and label: [size, columns]. `places` belong to all visits, or to those
        that are chosen by their row."""
        labels = self.labels if chosen is None else self.labels[chosen]
        people = self.people if chosen is None else self.people[chosen]
        shape = (size, len(self.columns))
        cells = places * shape[1] + labels
        number = int(self.people.max(initial=0)) + 1
        by_person = np.unique(cells * number + people) // number
        least = shape[0] * shape[1]
        return (
            np.bincount(cells, minlength=least).reshape(shape),
            np.bincount(by_person, minlength=least).reshape(shape),
        )

    @property
    def number_of_people(self) -> int:
        return len(np.unique(self.people))


def label_columns(labels: Sequence[str | None], label_names: Sequence[str]) -> tuple[str, ...]:
    """The task's labels, then NO_LABEL where a visit has none of them."""
    return (*label_names, *[NO_LABEL] * any(label not in label_names for label in labels))


def visits_of(table: pa.Table, columns: tuple[str, ...]) -> Visits:
    """From the columns `patient_id` and `label` of a table."""
    places = {label: place for place, label in enumerate(columns)}
    labels = [places.get(label, len(columns) - 1) for label in table.column("label").to_pylist()]
    people = table.column("patient_id").combine_chunks().dictionary_encode().indices
    return Visits(np.array(labels, dtype=np.int64), np.asarray(people, dtype=np.int64), columns)


def count_groups(patients: pa.Table, visits: Visits, described: Visits, exact: bool) -> Iterator[CountGroup]:
    """All visits by label, then by sex, age band and split; small cells of these are hidden unless `exact`."""
    yield _all(visits, described)
    sexes = [sex or UNKNOWN for sex in patients.column("sex").to_pylist()]
    yield _crossed("Sex", sexes, ("female", "male"), visits, exact)
    open_ended = ["age_years" in (names or ()) for names in patients.column("at_least").to_pylist()]
    ages = patients.column("age_years").to_pylist()
    bands = [age_band(age, or_more) for age, or_more in zip(ages, open_ended, strict=True)]
    yield _crossed("Age at the visit, years", bands, tuple(AGE_BANDS), visits, exact)
    yield _crossed("Split", patients.column("split").to_pylist(), get_args(Split), visits, exact)


def age_band(age_years: float | None, or_more: bool = False) -> str:
    """Band of AGE_BANDS; unknown without an age, and where the age is a lower bound below the last band."""
    if age_years is None:
        return UNKNOWN
    band = next((name for name, end in AGE_BANDS.items() if age_years < end), UNKNOWN)
    return UNKNOWN if or_more and band != list(AGE_BANDS)[-1] else band


def visits_per_person(visits: Visits) -> tuple[Tally, ...]:
    """People by their number of visits; numbers that no one has are left out."""
    people = Counter(
        next(name for name, end in VISITS_PER_PERSON.items() if count < end)
        for count in np.unique(visits.people, return_counts=True)[1].tolist()
    )
    return tuple(Tally(name=name, count=people[name]) for name in VISITS_PER_PERSON if people[name])


def _all(visits: Visits, described: Visits) -> CountGroup:
    counts, people = visits.tally(np.zeros_like(visits.labels), 1)
    with_findings, _ = described.tally(np.zeros_like(described.labels), 1)
    rows = (
        ("visits", counts, len(visits.labels)),
        ("people", people, visits.number_of_people),
        ("visits with findings", with_findings, len(described.labels)),
    )
    return CountGroup(
        title="In all",
        rows=tuple(CountRow(name=name, counts=tuple(cells[0].tolist()), total=total) for name, cells, total in rows),
    )


def _crossed(title: str, values: Sequence[str], names: Sequence[str], visits: Visits, exact: bool) -> CountGroup:
    """By value and label; a row of unknown values only where there are any."""
    names = [*names, *[UNKNOWN] * (UNKNOWN in values)]
    places = {name: place for place, name in enumerate(names)}
    counts, people = visits.tally(np.array([places[value] for value in values], dtype=np.int64), len(names))
    cells = counts.tolist() if exact else hide_small(counts, people)
    rows = zip(names, cells, counts.sum(axis=1).tolist(), strict=True)
    return CountGroup(
        title=title, rows=tuple(CountRow(name=name, counts=tuple(row), total=total) for name, row, total in rows)
    )
