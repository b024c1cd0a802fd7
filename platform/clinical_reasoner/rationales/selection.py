"""Selection (rejection sampling): which rationales of a visit students may learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from clinical_reasoner.asks import ASK_KINDS

Row = dict[str, Any]


def select(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of the `rationales` table, those of a model about a visit adjacent, with `selected` filled in.

    Of a visit, every accepted rationale that came to the recorded diagnosis by itself is "reasoned". Where there is
    none, the first accepted one that was told the diagnosis is "hinted". A visit of the test split, or without a
    recorded diagnosis, has none of either.
    """
    for _, group in groupby(rows, key=lambda row: (row["model"], row["patient_id"], row["visit_id"])):
        yield from _select_visit(list(group))


def _select_visit(rows: list[Row]) -> list[Row]:
    learnt = [row for row in rows if row["split"] != "test" and row["label"] is not None]
    fit = [row for row in learnt if row["accepted"] and row["rationale"]]
    reasoned = [row["row_id"] for row in fit if row["predicted"] == row["label"]]
    hinted = [row["row_id"] for row in fit if ASK_KINDS[row["ask"]].told_label][:1]
    kind = "reasoned" if reasoned else "hinted"
    chosen = {*(reasoned or hinted)}
    return [{**row, "selected": kind if row["row_id"] in chosen else None} for row in rows]
