"""Which question is put about which visit, how often, and with which seed."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.rationales.asks import ASKS, make_asks, row_seed
from clinical_reasoner.records import FINDINGS, Ask, FindingsRow, Split, to_table

ALL: dict[Ask, tuple[Split, ...]] = {
    "rationalize": ("train", "validation"),
    "diagnose": ("test",),
    "direct": ("test",),
}


def visit(patient: str, split: Split, visit_id: str = "bl") -> FindingsRow:
    return FindingsRow(
        patient_id=patient,
        visit_id=visit_id,
        split=split,
        label="AD",
        description=f"about {patient}",
        picture_path=None if patient == "a" else f"slices/{patient}.png",
    )


def asks_of(
    visits: list[FindingsRow],
    asks: dict[Ask, tuple[Split, ...]],
    samples: dict[Ask, int] | None = None,
    seed: int = 3,
    model: str = "m",
) -> list[dict[str, Any]]:
    rows = list(make_asks(to_table(visits, FINDINGS).to_pylist(), asks, model, seed=seed, samples=samples))
    assert all(list(row) == ASKS.names for row in rows)
    assert pa.Table.from_pylist(rows, schema=ASKS).to_pylist() == rows
    return rows


def test_each_ask_is_put_about_its_splits_alone() -> None:
    rows = asks_of([visit("a", "train"), visit("b", "test"), visit("c", "validation")], ALL)
    assert [(row["patient_id"], row["ask"]) for row in rows] == [
        ("a", "rationalize"),
        ("b", "diagnose"),
        ("b", "direct"),
        ("c", "rationalize"),
    ]
    assert [row["picture_path"] for row in rows] == [None, "slices/b.png", "slices/b.png", "slices/c.png"]
    assert rows[1] == {
        "row_id": "b|bl|diagnose|0|m",
        "patient_id": "b",
        "visit_id": "bl",
        "split": "test",
        "label": "AD",
        "description": "about b",
        "picture_path": "slices/b.png",
        "ask": "diagnose",
        "sample": 0,
        "seed": row_seed(3, "b|bl|diagnose|0"),
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
        st.sampled_from(list(ASK_KINDS)), st.sets(st.sampled_from(["train", "validation", "test"])).map(tuple)
    ),
    samples=st.dictionaries(st.sampled_from(list(ASK_KINDS)), st.integers(1, 4)),
)
def test_ids_are_unique_and_what_shares_a_prompt_adjacent(
    visits: list[tuple[str, Split, str]], asks: dict[Ask, tuple[Split, ...]], samples: dict[Ask, int]
) -> None:
    rows = asks_of([visit(*entry) for entry in visits], asks, samples)
    ids = [row["row_id"] for row in rows]
    wanted = sum(samples.get(ask, 1) for _, split, _ in visits for ask, splits in asks.items() if split in splits)
    assert len(set(ids)) == len(ids) == wanted
    for names in (("patient_id", "visit_id"), ("patient_id", "visit_id", "ask")):
        keys = [tuple(row[name] for name in names) for row in rows]
        changes = [key for index, key in enumerate(keys) if index == 0 or keys[index - 1] != key]
        assert len(changes) == len(set(changes))
    assert rows == asks_of([visit(*entry) for entry in visits], asks, samples)


def test_samples_are_counted_from_0_and_differ_in_their_seed_alone() -> None:
    rows = asks_of([visit("a", "test")], {"diagnose": ("test",), "direct": ("test",)}, {"diagnose": 3})
    assert [(row["ask"], row["sample"]) for row in rows] == [
        ("diagnose", 0),
        ("diagnose", 1),
        ("diagnose", 2),
        ("direct", 0),
    ]
    assert [row["row_id"] for row in rows[:2]] == ["a|bl|diagnose|0|m", "a|bl|diagnose|1|m"]
    assert len({row["seed"] for row in rows}) == 4
    shared = ("patient_id", "visit_id", "split", "label", "description", "picture_path", "ask")
    assert len({tuple(row[name] for name in shared) for row in rows[:3]}) == 1


def test_seed_of_a_row_follows_from_the_run_and_the_row_alone() -> None:
    alone = asks_of([visit("b", "test")], ALL)
    among = asks_of([visit("a", "test"), visit("b", "test")], ALL, {"diagnose": 2})
    seeds = {row["row_id"]: row["seed"] for row in among}
    assert {row["row_id"]: row["seed"] for row in alone}.items() <= seeds.items()
    assert len(set(seeds.values())) == len(seeds) == 6
    assert all(row["seed"] != seeds[row["row_id"]] for row in asks_of([visit("b", "test")], ALL, seed=4))
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert row_seed(0, "p|bl|diagnose|0") == 1139246630  # on every machine


@pytest.mark.parametrize("ask", list(ASK_KINDS))
def test_every_ask_can_be_put_about_every_split(ask: Ask) -> None:
    rows = asks_of([visit("a", "train"), visit("b", "test"), visit("c", "validation")], {ask: ("train", "test")})
    assert [row["patient_id"] for row in rows] == ["a", "b"]


def test_ids_stay_apart_where_they_hold_the_separator() -> None:
    rows = asks_of([visit("a", "test", "b|c"), visit("a|b", "test", "c"), visit("a\\|b", "test", "c")], ALL)
    assert len({row["row_id"] for row in rows}) == len(rows) == 6


def test_models_are_asked_the_same_under_ids_of_their_own() -> None:
    visits = [visit("a", "test"), visit("b", "train", "b|c"), visit("b|b", "train", "c")]
    models = ["m", "n", "org/m-7b", "diagnose|0|m"]
    asked = [asks_of(visits, ALL, {"diagnose": 2}, model=model) for model in models]
    ids = [row["row_id"] for rows in asked for row in rows]
    assert len(set(ids)) == len(ids) == 4 * 5
    assert asked[1][0]["row_id"] == "a|bl|diagnose|0|n"
    without_ids = [[{**row, "row_id": ""} for row in rows] for rows in asked]
    assert all(rows == without_ids[0] for rows in without_ids), "the seed too"
