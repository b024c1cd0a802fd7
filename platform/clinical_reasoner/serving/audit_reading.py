"""Find audit records, in rolled files and in journals that are in no file yet, each once.

Rolled files are filtered by pyarrow as they are read; what matches is in memory for one day at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import AUDIT, AuditError, AuditRow
from clinical_reasoner.serving.audit_files import (
    DAY,
    ROLLED,
    AuditPlaces,
    audit_places,
    journals,
    read_lines,
    rolled_stem,
)

_MOMENT = r"^\d{4}-\d{2}-\d{2}(?:T\d{2}(?::\d{2}(?::\d{2}(?:\.\d{1,3})?)?)?)?Z?$"


class AuditQuery(BaseModel):
    """Which records; None does not narrow them down."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: str | None = None
    key_id: str | None = None
    since: str | None = Field(default=None, pattern=_MOMENT)
    """From here on, UTC: a day or a moment, e.g. `2026-01-31` or `2026-01-31T09:05`."""
    until: str | None = Field(default=None, pattern=_MOMENT)
    """Up to here, itself left out."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        moment = str(row.get("time", ""))
        return (
            (self.request_id is None or row.get("request_id") == self.request_id)
            and (self.key_id is None or row.get("key_id") == self.key_id)
            and (self.since is None or moment >= self.since.removesuffix("Z"))
            and (self.until is None or moment < self.until.removesuffix("Z"))
        )

    def filter(self) -> pc.Expression:
        """`matches` for pyarrow. The texts of times are in the order of time."""
        expression = pc.scalar(True)
        for column, wanted in (("request_id", self.request_id), ("key_id", self.key_id)):
            if wanted is not None:
                expression &= pc.field(column) == wanted
        if self.since is not None:
            expression &= pc.field("time") >= self.since.removesuffix("Z")
        if self.until is not None:
            expression &= pc.field("time") < self.until.removesuffix("Z")
        return expression

    def may_lie_in(self, day: str) -> bool:
        """Whether the files of this day can have such a record: they were written then, but the request of a record
        may have come the day before."""
        since = self.since is None or self.since[:10] <= day
        return since and (self.until is None or _day_before(day) <= self.until[:10])


def make_query(request: str | None, key: str | None, since: str | None, until: str | None) -> AuditQuery:
    """The query of a command line; request ids are recorded in lower case. Raises AuditError for a time that is
    none."""
    try:
        query = AuditQuery(request_id=request and request.lower(), key_id=key, since=since, until=until)
        for moment in (since, until):
            date.fromisoformat((moment or "2000-01-01")[:10])
    except ValueError as error:  # of pydantic as well
        raise AuditError("write a time in UTC as a day or moment such as 2026-01-31 or 2026-01-31T09:05") from error
    return query


def find_records(config: AuditConfig, run_path: str, query: AuditQuery) -> Iterator[AuditRow]:
    """Matching records, day by day in the order of their time, then of their place in a batch.

    Of an S3 folder, journals are read where `serving.audit.journal` names a folder of this machine. Raises AuditError
    where there is no such folder, or a file cannot be read.
    """
    places = audit_places(config, run_path)
    try:
        yield from _find(places, query)
    except (OSError, pa.ArrowException) as error:
        raise AuditError(f"{places.path}: audit records cannot be read: {type(error).__name__}: {error}") from error


def _find(places: AuditPlaces, query: AuditQuery) -> Iterator[AuditRow]:
    # Journals first: one that becomes a file while we look is then in both lists, and left out for its file.
    waiting = _in_journals(places, query)
    files = _rolled_files(places, query)
    stems = {name.rpartition(".")[0] for names in files.values() for name in names}
    for day in sorted(files.keys() | waiting.keys()):
        rows = [row for stem, row in waiting.get(day, []) if stem not in stems]
        rows += _in_files(places, files.get(day, []), query)
        yield from sorted((_checked(row, places) for row in rows), key=_order)


def _day_before(day: str) -> str:
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()


def _order(row: AuditRow) -> tuple[str, str, int]:
    return row.time, row.request_id, -1 if row.item is None else row.item


def _checked(row: Mapping[str, Any], places: AuditPlaces) -> AuditRow:
    try:
        return AuditRow.model_validate({name: row[name] for name in AuditRow.model_fields if name in row})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise AuditError(f"{places.path}: a record that this version cannot read: {place}: {first['msg']}") from error


def _in_journals(places: AuditPlaces, query: AuditQuery) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Day -> stem of the file that the journal becomes, and row."""
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path in journals(places.journal) if places.journal else []:
        stem = rolled_stem(path.name)
        day = stem.partition("/")[0]
        if not query.may_lie_in(day):
            continue
        try:
            lines = read_lines(path.read_bytes())
        except FileNotFoundError:  # it has become a file since it was listed
            continue
        found.setdefault(day, []).extend((stem, row) for row in lines.rows if query.matches(row))
    return found


def _rolled_files(places: AuditPlaces, query: AuditQuery) -> dict[str, list[str]]:
    """Day -> names of its files below the audit folder."""
    if places.files.get_file_info(places.base).type is not pafs.FileType.Directory:
        raise AuditError(f"{places.path}: no such folder; correct run.path or serving.audit.path")
    days = [info.base_name for info in places.files.get_file_info(pafs.FileSelector(places.base))]
    return {
        day: sorted(
            f"{day}/{info.base_name}"
            for info in places.files.get_file_info(pafs.FileSelector(f"{places.base}/{day}", allow_not_found=True))
            if ROLLED.fullmatch(info.base_name)
        )
        for day in days
        if DAY.fullmatch(day) and query.may_lie_in(day)
    }


def _in_files(places: AuditPlaces, names: Sequence[str], query: AuditQuery) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    parquet = [f"{places.base}/{name}" for name in names if name.endswith(".parquet")]
    if parquet:
        # With the schema of this version: a column that an older file lacks is null.
        table = ds.dataset(parquet, schema=AUDIT, format="parquet", filesystem=places.files)
        rows += table.to_table(filter=query.filter()).to_pylist()
    for name in names:
        if name.endswith(".jsonl"):
            with places.files.open_input_stream(f"{places.base}/{name}", compression=None) as stream:
                rows += [row for row in read_lines(stream.read()).rows if query.matches(row)]
    return rows


def as_json(row: AuditRow) -> str:
    """One line."""
    return row.model_dump_json()


def as_lines(row: AuditRow) -> str:
    """What was said, by which version, for people."""
    item = "" if row.item is None else f", item {row.item}"
    asked = f"request {row.request_id}{item}: {row.time}, {row.form}, key {_or_none(row.key_id)}"
    reason = f" ({row.reason})" if row.reason else ""
    return "\n".join(
        [
            asked,
            f"  outcome: {row.outcome}{reason}, status {row.status}{_seconds(row.latency_s)}",
            f"  said: {_said(row)}",
            f"  by: {_by(row)}",
            f"  version: software {row.version}, prompt {_or_none(row.prompt_version)}, operating point "
            f"{_or_none(row.operating_point)}, model files {_or_none(row.model_fingerprint)}",
            f"  tokens: {_or_none(row.prompt_tokens)} read, {_or_none(row.output_tokens)} written; "
            f"input {_or_none(row.input_hmac)}",
        ]
    )


def _said(row: AuditRow) -> str:
    if row.diagnosis is None:
        return "no diagnosis"
    parts = [row.diagnosis]
    if row.probabilities is not None:
        parts.append(", ".join(f"{one.label} {one.probability:.3f}" for one in row.probabilities))
    if row.prediction_set is not None:
        parts.append(f"prediction set {{{', '.join(row.prediction_set)}}}")
    if row.refer:
        parts.append("refer to a clinician")
    return "; ".join(parts)


def _by(row: AuditRow) -> str:
    if row.answered_by is None:
        return f"no model (asked: {_or_none(row.model_asked)})"
    degraded = ", degraded" if row.degraded else ""
    asked = f"asked: {_or_none(row.model_asked)}, {_or_none(row.routing)}{degraded}"
    return f"{row.answered_by}, model {_or_none(row.model)} ({asked})"


def _seconds(latency_s: float | None) -> str:
    return "" if latency_s is None else f", {latency_s:.3f} s"


def _or_none(value: str | int | None) -> str:
    return "none" if value is None else str(value)
