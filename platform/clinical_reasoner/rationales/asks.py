"""The asks of a run: which question is put about which visit, as a table that generation reads."""

from __future__ import annotations

import hashlib
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
        ("seed", pa.int64()),
    ]
)


def make_asks(
    findings: pa.Table, asks: Mapping[Ask, Sequence[Split]], *, seed: int, samples: Mapping[Ask, int] | None = None
) -> pa.Table:
    """One row per ask, sample and visit of the ask's splits; ids and seeds are deterministic.

    Asks about one visit are adjacent, and so are the samples of an ask, whose prompt the engine then has in its cache.
    An ask that `samples` does not name is put once.
    """
    rows = [
        {
            "row_id": row_id,
            **{name: visit[name] for name in ("patient_id", "visit_id", "split", "label", "description")},
            "ask": ask,
            "sample": sample,
            "seed": row_seed(seed, row_id),
        }
        for visit in findings.to_pylist()
        for ask, splits in asks.items()
        if visit["split"] in splits
        for sample in range((samples or {}).get(ask, 1))
        for row_id in [f"{visit_key(visit['patient_id'], visit['visit_id'])}|{ask}|{sample}"]
    ]
    return pa.Table.from_pylist(rows, schema=ASKS)


def visit_key(patient_id: str, visit_id: str) -> str:
    """The part of a row id that names the visit; unique also where an id holds the separator."""
    return "|".join(name.replace("\\", "\\\\").replace("|", "\\|") for name in (patient_id, visit_id))


def row_seed(seed: int, row_id: str) -> int:
    """Seed of one row under the run's seed, the same on every machine; 31 bits, which every engine takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{row_id}".encode()).digest()[:4], "big") >> 1
