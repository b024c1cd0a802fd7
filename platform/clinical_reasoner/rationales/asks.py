"""The asks of a run: which question is put about which visit, as a table that generation reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from clinical_reasoner.records import Ask, Split

Row = dict[str, Any]
ASKS = pa.schema(
    [
        ("row_id", pa.string()),
        ("patient_id", pa.string()),
        ("visit_id", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("description", pa.string()),
        ("picture_path", pa.string()),
        ("ask", pa.string()),
        ("sample", pa.int64()),
        ("seed", pa.int64()),
    ]
)

_OF_VISIT = ("patient_id", "visit_id", "split", "label", "description", "picture_path")


def make_asks(
    visits: Iterable[Row],
    asks: Mapping[Ask, Sequence[Split]],
    model: str,
    *,
    seed: int,
    samples: Mapping[Ask, int] | None = None,
) -> Iterator[Row]:
    """One row of ASKS per ask, sample and visit (row of `findings`) of the ask's splits; ids and seeds are
    deterministic.

    Asks about one visit are adjacent, and so are the samples of an ask, whose prompt the engine then has in its cache.
    An ask that `samples` does not name is put once.
    """
    for visit in visits:
        own = {name: visit[name] for name in _OF_VISIT}
        for ask, splits in asks.items():
            for sample in range((samples or {}).get(ask, 1) if visit["split"] in splits else 0):
                key = f"{visit_key(visit['patient_id'], visit['visit_id'])}|{ask}|{sample}"
                # Not of the model's name, which may be a folder's: the same answer wherever it lies.
                seeded = row_seed(seed, key)
                yield {"row_id": f"{key}|{model}", **own, "ask": ask, "sample": sample, "seed": seeded}


def visit_key(patient_id: str, visit_id: str) -> str:
    """The part of a row id that names the visit; unique also where an id holds the separator."""
    return "|".join(name.replace("\\", "\\\\").replace("|", "\\|") for name in (patient_id, visit_id))


def row_seed(seed: int, key: str) -> int:
    """Seed of one row under the run's seed, the same on every machine; 31 bits, which every engine takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{key}".encode()).digest()[:4], "big") >> 1
