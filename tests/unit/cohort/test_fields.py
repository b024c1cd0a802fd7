"""Time since the first visit, from codes, columns and ages, whatever the order of the rows."""

from __future__ import annotations

import itertools

import pytest

from clinical_reasoner.cohort.fields import Baselines

Row = tuple[str, float | None, float | None]
"""Visit, age, stated time; years."""


def years(*rows: Row) -> dict[str, float]:
    baselines = Baselines()
    baselines.add("another", "bl", 20.0)
    for visit_id, age, stated in rows:
        baselines.add("P", visit_id, age, stated)
    return {visit_id: baselines.years("P", visit_id, age, stated) for visit_id, age, stated in rows}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("w3", 80.0, None), ("w1", 70.0, None)], {"w1": 0.0, "w3": 10.0}),
        ([("w3", 80.0, None), ("w1", 20.0, None)], {"w1": 0.0, "w3": 60.0}),
        # A code goes before the ages, which may be whole years.
        ([("bl", 70.0, None), ("m06", 70.0, None), ("x", 73.0, None)], {"bl": 0.0, "m06": 0.5, "x": 3.5}),
        ([("bl", None, None), ("m06", None, None)], {"bl": 0.0, "m06": 0.5}),
        ([("m06", 70.0, None), ("m18", 71.0, None)], {"m06": 0.5, "m18": 1.5}),
        # What a column states goes before both.
        ([("bl", 70.0, 0.0), ("m12", 71.0, 1.25), ("x", 73.0, None)], {"bl": 0.0, "m12": 1.25, "x": 3.25}),
        # Long before the baseline of the codes.
        ([("bl", 70.0, None), ("m12", 71.0, None), ("x", 50.0, None)], {"x": 0.0, "bl": 20.0, "m12": 21.0}),
        ([("x", None, None), ("y", None, None)], {"x": 0.0, "y": 0.0}),
    ],
)
def test_order_of_rows_makes_no_difference(rows: list[Row], expected: dict[str, float]) -> None:
    for turned in itertools.permutations(rows):
        assert years(*turned) == expected


def test_person_of_whom_nothing_was_said_before() -> None:
    assert Baselines().years("P", "m06", 70.0) == 0.5
    assert Baselines().years("P", "x", 70.0) == 0.0
