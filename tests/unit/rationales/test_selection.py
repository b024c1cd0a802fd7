"""Which rationales of a visit students may learn from."""

from __future__ import annotations

from typing import Any

import pytest

from clinical_reasoner.rationales.selection import select


def row(row_id: str, ask: str = "diagnose", predicted: str | None = "AD", **changed: Any) -> dict[str, Any]:
    """An accepted row about a person with AD."""
    own = {"row_id": row_id, "ask": ask, "model": "m", "patient_id": "p", "visit_id": "v", "split": "train"}
    return {**own, "label": "AD", "predicted": predicted, "accepted": True, "rationale": "Because.", **changed}


def told(row_id: str, **changed: Any) -> dict[str, Any]:
    return row(row_id, "rationalize", None, **changed)


MISSED: dict[str, Any] = {"predicted": "NC", "accepted": False}


@pytest.mark.parametrize(
    ("rows", "selected"),
    [
        ([told("1"), row("2"), row("3")], {"2": "reasoned", "3": "reasoned"}),
        ([told("1"), row("2", **MISSED), row("3")], {"3": "reasoned"}),
        ([told("1"), told("2"), row("3", **MISSED)], {"1": "hinted"}),
        ([told("1", accepted=False), told("2"), row("3", **MISSED)], {"2": "hinted"}),
        ([told("1")], {"1": "hinted"}),
        ([told("1", accepted=False), row("2", **MISSED)], {}),
        ([told("1", label=None), row("2", label=None)], {}),
        ([row("1", "direct", rationale=None), told("2")], {"2": "hinted"}),
        ([row("1", predicted="NC")], {}),
        ([row("1", split="test"), told("2", split="test")], {}),
    ],
    ids=[
        "all that pass",
        "one that passes",
        "all miss",
        "first fit hint",
        "never diagnosed",
        "none fit",
        "no label",
        "a label alone is no rationale",
        "another diagnosis",
        "not to be learnt from",
    ],
)
def test_selection_of_a_visit(rows: list[dict[str, Any]], selected: dict[str, str]) -> None:
    chosen = list(select(rows))
    assert [one["row_id"] for one in chosen] == [one["row_id"] for one in rows], "no row is lost"
    assert {one["row_id"]: one["selected"] for one in chosen if one["selected"]} == selected


def test_each_model_and_visit_by_itself() -> None:
    rows = [row("1"), told("2", visit_id="w"), told("3", model="n")]
    assert [one["selected"] for one in select(rows)] == ["reasoned", "hinted", "hinted"]
