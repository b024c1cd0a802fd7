"""What the OASIS and NACC readers share: the CDR as a proxy of the diagnosis, the MMSE, visits of a single table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from clinical_reasoner.cohort.columns import StudyRow
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.records import RejectedRow

CDR_SOURCE = "CDR (proxy)"
"""`label_source` of a label that was read from a global CDR."""
_LABELS = {0.0: "NC", 0.5: "MCI", 1.0: "AD", 2.0: "AD", 3.0: "AD"}


def cdr_label(row: StudyRow, name: str) -> str:
    """Label for a global Clinical Dementia Rating (0, 0.5, 1, 2, 3; higher = worse): 0 NC, 0.5 MCI, 1 and above AD.

    A proxy, no diagnosis: the CDR stages how far a person is impaired and not by what (Morris 1993, Neurology 43:2412).
    OASIS calls 0.5 very mild AD, with a "similar level of impairment to individuals elsewhere considered to have MCI"
    (Marcus 2010, doi:10.1162/jocn.2009.21407). Raises ValueError, without the value, when it is missing or another.
    """
    rating = row.number(name, 0, 3)
    if rating is None:
        raise ValueError(f"no {name}, so no diagnosis")
    if rating not in _LABELS:
        raise ValueError(f"{name} is none of 0, 0.5, 1, 2, 3")
    return _LABELS[rating]


def mmse_points(row: StudyRow, name: str, missing: Sequence[float] = ()) -> int | None:
    """Mini-Mental State Examination, 0 to 30 points, higher is better. Raises ValueError as `whole_number`."""
    return whole_number(row, name, 0, 30, missing)


def whole_number(row: StudyRow, name: str, low: int, high: int, missing: Sequence[float] = ()) -> int | None:
    """As `StudyRow.number`, for what is counted: raises ValueError, without the value, for a fraction too."""
    value = row.number(name, low, high, missing)
    if value is None:
        return None
    if not value.is_integer():
        raise ValueError(f"{name} is not a whole number")
    return int(value)


def visit_per_row(rows: Iterable[StudyRow], parse: Callable[[StudyRow], Visit]) -> Iterator[Visit | RejectedRow]:
    """A visit, or why there is none, for each row of a table; of rows about one visit the first is used, and of rows
    that give a person two sexes those that agree with the first. `parse` raises ValueError, without any value of the
    patient, for a row that cannot be used."""
    seen: set[tuple[str, str]] = set()
    sexes: dict[str, str] = {}
    for row in rows:
        try:
            visit = parse(row)
            if (visit.patient_id, visit.visit_id) in seen:
                raise ValueError("the same subject and visit as an earlier row")
            if visit.sex and sexes.setdefault(visit.patient_id, visit.sex) != visit.sex:
                raise ValueError("sex differs from that of an earlier row of the same person")
        except ValueError as error:
            yield set_aside(row.place, str(error))
        else:
            seen.add((visit.patient_id, visit.visit_id))
            yield visit
