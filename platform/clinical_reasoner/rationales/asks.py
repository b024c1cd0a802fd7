"""The asks of a run: which question is put about which visit, as a table that generation reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from clinical_reasoner.records import Ask, Split

ASKS = pa.schema(
    [
        ("row_id", pa.string()),
        ("patient_id", pa.string()),
        ("visit_id", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("description", pa.string()),
        ("ask", pa.string()),
        ("sample", pa.int64()),
    ]
)


def make_asks(findings: pa.Table, asks: Mapping[Ask, Sequence[Split]]) -> pa.Table:
    """One row per ask and visit of its splits, asks about one visit adjacent, ids deterministic."""
    rows = [
        {
            "row_id": _row_id(visit["patient_id"], visit["visit_id"], ask, sample=0),
            **{name: visit[name] for name in ("patient_id", "visit_id", "split", "label", "description")},
            "ask": ask,
            "sample": 0,
        }
        for visit in findings.to_pylist()
        for ask, splits in asks.items()
        if visit["split"] in splits
    ]
    return pa.Table.from_pylist(rows, schema=ASKS)


def _row_id(patient_id: str, visit_id: str, ask: str, sample: int) -> str:
    """Unique also where an id holds the separator."""
    names = (name.replace("\\", "\\\\").replace("|", "\\|") for name in (patient_id, visit_id))
    return "|".join([*names, ask, str(sample)])
