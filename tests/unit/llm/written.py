"""Rows of a generation as a run folder holds them, written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clinical_reasoner.llm.generation import FAILURE, PLACE, Row
from clinical_reasoner.llm.work import Work
from clinical_reasoner.runs import RunFolder

ASKED = pa.schema([("row_id", pa.string()), ("patient_id", pa.string())])
"""Of the prompts."""
ANSWERED = pa.schema([("row_id", pa.string()), ("text", pa.string())])
"""Of what is made of the answers."""


def prompts(count: int, rows_per_patient: int = 1) -> list[Row]:
    return [{"row_id": str(place), "patient_id": f"p{place // rows_per_patient}"} for place in range(count)]


def work_with(run: RunFolder, folder: str, *blocks: Sequence[int], failed: Mapping[int, str] | None = None) -> Work:
    """A work folder whose generated blocks hold the rows of these places."""
    work = Work(run, folder)
    for number, places in enumerate(blocks):
        add_block(work, number, places, failed or {})
    return work


def add_block(work: Work, number: int, places: Sequence[int], failed: Mapping[int, str]) -> Path:
    """The file of one block. A row's text is that of its place and folder; with `failed` it has that kind instead."""
    rows = [
        {
            "row_id": str(place),
            "text": "" if place in failed else f"{work.folder} {place}",
            "accepted": place not in failed and place % 2 == 0,
            "output_tokens": 0 if place in failed else 10,
            FAILURE: failed.get(place),
            PLACE: place,
        }
        for place in places
    ]
    file = Path(work.run.child(work.generated, f"{9 - number}_{number:06}.parquet"))  # names say nothing of places
    file.parent.mkdir(parents=True, exist_ok=True)
    schema = [(FAILURE, pa.string()), (PLACE, pa.int64()), ("accepted", pa.bool_()), ("output_tokens", pa.int64())]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([*ANSWERED, *schema])), file)
    return file
