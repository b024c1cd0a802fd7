"""Visits put aside, compressed, until all of a person's are there: memory hardly grows with the cohort."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import arrow_schema

_SCHEMA = arrow_schema(Visit)
_ROWS_TOGETHER = 256


class Spool:
    """Buckets of visits, each in the order in which they were added."""

    def __init__(self) -> None:
        self._open: dict[str, list[dict[str, Any]]] = {}
        self._packed: dict[str, list[pa.Buffer]] = {}

    def add(self, bucket: str, visit: Visit) -> None:
        """Put one visit aside."""
        rows = self._open.setdefault(bucket, [])
        rows.append(visit.model_dump())
        if len(rows) == _ROWS_TOGETHER:
            self._packed.setdefault(bucket, []).append(_pack(rows))
            rows.clear()

    def drain(self) -> Iterator[list[Visit]]:
        """The visits of one bucket after another, in the order of the buckets' names. Empties the spool."""
        for bucket in sorted(self._open):
            rows = [row for packed in self._packed.pop(bucket, []) for row in _unpack(packed)]
            yield [Visit.model_validate(row) for row in (*rows, *self._open.pop(bucket))]


def _pack(rows: list[dict[str, Any]]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
    return sink.getvalue()


def _unpack(packed: pa.Buffer) -> list[dict[str, Any]]:
    with pa.ipc.open_stream(packed) as reader:
        rows: list[dict[str, Any]] = reader.read_all().to_pylist()
    return rows
