"""Which question is put about which visit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.rationales.asks import ASKS, make_asks
from clinical_reasoner.records import FINDINGS, Ask, FindingsRow, Split, to_table

ALL: dict[Ask, tuple[Split, ...]] = {
    "rationalize": ("train", "validation"),
    "diagnose": ("test",),
    "direct": ("test",),
}


def visit(patient: str, split: Split, visit_id: str = "bl") -> FindingsRow:
    return FindingsRow(patient_id=patient, visit_id=visit_id, split=split, label="AD", description=f"about {patient}")


def asks_of(visits: list[FindingsRow], asks: dict[Ask, tuple[Split, ...]]) -> list[dict[str, Any]]:
    table = make_asks(to_table(visits, FINDINGS), asks)
    assert table.schema.equals(ASKS)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_each_ask_is_put_about_its_splits_alone() -> None:
    rows = asks_of([visit("a", "train"), visit("b", "test"), visit("c", "validation")], ALL)
    assert [(row["patient_id"], row["ask"]) for row in rows] == [
        ("a", "rationalize"),
        ("b", "diagnose"),
        ("b", "direct"),
        ("c", "rationalize"),
    ]
    assert rows[1] == {
        "row_id": "b|bl|diagnose|0",
        "patient_id": "b",
        "visit_id": "bl",
        "split": "test",
        "label": "AD",
        "description": "about b",
        "ask": "diagnose",
        "sample": 0,
    }


def test_no_visit_no_ask() -> None:
    assert asks_of([], ALL) == []
    assert asks_of([visit("a", "train")], {"direct": ()}) == []


@given(
    visits=st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["train", "validation", "test"]), st.sampled_from(["bl", "m06"])
        ),
        max_size=6,
        unique_by=lambda entry: (entry[0], entry[2]),
    ),
    asks=st.dictionaries(
        st.sampled_from(["rationalize", "diagnose", "direct"]),
        st.sets(st.sampled_from(["train", "validation", "test"])).map(tuple),
    ),
)
def test_ids_are_unique_and_asks_about_a_visit_adjacent(
    visits: list[tuple[str, Split, str]], asks: dict[Ask, tuple[Split, ...]]
) -> None:
    rows = asks_of([visit(*entry) for entry in visits], asks)
    ids = [row["row_id"] for row in rows]
    assert len(set(ids)) == len(ids) == sum(split in splits for _, split, _ in visits for splits in asks.values())
    keys = [(row["patient_id"], row["visit_id"]) for row in rows]
    changes = [key for index, key in enumerate(keys) if index == 0 or keys[index - 1] != key]
    assert len(changes) == len(set(changes))
    assert ids == [row["row_id"] for row in asks_of([visit(*entry) for entry in visits], asks)]


@pytest.mark.parametrize("ask", ["rationalize", "diagnose", "direct"])
def test_every_ask_can_be_put_about_every_split(ask: Ask) -> None:
    rows = asks_of([visit("a", "train"), visit("b", "test"), visit("c", "validation")], {ask: ("train", "test")})
    assert [row["patient_id"] for row in rows] == ["a", "b"]


def test_ids_stay_apart_where_they_hold_the_separator() -> None:
    rows = asks_of([visit("a", "test", "b|c"), visit("a|b", "test", "c"), visit("a\\|b", "test", "c")], ALL)
    assert len({row["row_id"] for row in rows}) == len(rows) == 6
