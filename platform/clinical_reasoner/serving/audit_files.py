"""Where audit records lie: rolled files by day, local or on S3, and the journals of what is in no file yet.

    PATH/2026-01-31/090500-WRITER-00001.parquet (or .jsonl)      written once, whole, never changed
    JOURNAL/20260131T090500-WRITER-00001.jsonl                   grows record by record until it becomes that file

A journal's name tells its file's, so that a journal which a crash left behind its finished file is known to be spent.
The day and time are those at which the first record was written, UTC; no file has records of two days.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import AUDIT, KEY_FILE, AuditError
from clinical_reasoner.storage import RunError, filesystem

Format = Literal["parquet", "jsonl"]
FORMATS: tuple[Format, ...] = ("parquet", "jsonl")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
ROLLED = re.compile(r"\d{6}-[0-9a-f]{12}-\d{5,}\.(?:parquet|jsonl)")
_JOURNAL = re.compile(r"(\d{4})(\d{2})(\d{2})T(\d{6}-[0-9a-f]{12}-\d{5,})\.jsonl")


@dataclass(frozen=True)
class AuditPlaces:
    files: pafs.FileSystem
    base: str
    """Folder of the rolled files, on `files`."""
    path: str
    """The same as people write it: absolute, or `s3://` address."""
    journal: Path | None
    """None: on S3 with no `audit.journal` given; then there is nothing to read, and nothing can be written."""
    key_file: Path | None
    """Where `load_audit_key` finds or makes its key, beside the local folder."""

    @property
    def local(self) -> bool:
        return isinstance(self.files, pafs.LocalFileSystem)


def audit_places(config: AuditConfig, run_path: str) -> AuditPlaces:
    """The places that a config means. Raises AuditError for a path that cannot be one."""
    try:
        files, base = filesystem(config.path or f"{run_path.rstrip('/')}/audit")
    except RunError as error:
        raise AuditError(f"serving.audit.path: {error}") from error
    local = isinstance(files, pafs.LocalFileSystem)
    journal = Path(config.journal).expanduser().absolute() if config.journal else Path(base, "journal")
    beside = Path(base) if local else journal
    known = local or config.journal is not None
    return AuditPlaces(
        files=files,
        base=base,
        path=base if local else f"s3://{base}",
        journal=journal if known else None,
        key_file=beside.parent / KEY_FILE if known else None,
    )


def journal_name(moment: datetime, writer: str, number: int) -> str:
    """`moment` is in UTC, `writer` 12 hexadecimal digits."""
    return f"{moment:%Y%m%dT%H%M%S}-{writer}-{number:05}.jsonl"


def of_day(journal: str, moment: datetime) -> bool:
    """Whether a journal is of the day of this moment, in UTC; no file has records of two."""
    return journal.startswith(f"{moment:%Y%m%d}T")


def rolled_stem(journal: str) -> str:
    """Name of the file that a journal becomes, below the audit folder and without its ending."""
    found = _JOURNAL.fullmatch(journal)
    assert found, "the caller took a name from `journals`"
    year, month, day, rest = found.groups()
    return f"{year}-{month}-{day}/{rest}"


def journals(folder: Path) -> list[Path]:
    """Journals of all writers, by name; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names) if _JOURNAL.fullmatch(name)]


@dataclass(frozen=True)
class Lines:
    """The records of a journal or of a JSONL file."""

    rows: list[dict[str, Any]]
    whole: bytes
    """The lines that they were read from."""
    cut_off: int
    """0 or 1: a last line without its end, of a record that was never acknowledged."""
    damaged: int
    """Other lines that are no record: the disk, or somebody's editor, changed them."""


def read_lines(content: bytes) -> Lines:
    """Never raises: what cannot be read is counted."""
    *ended, rest = content.split(b"\n")
    rows, kept, damaged = [], [], 0
    for line in ended:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
            kept.append(line + b"\n")
        else:
            damaged += 1
    return Lines(rows, b"".join(kept), int(bool(rest)), damaged)


def file_content(lines: Lines, form: Format) -> bytes:
    """The rolled file of a journal's records. Raises ArrowInvalid where one does not fit the columns."""
    if form == "jsonl":
        return lines.whole
    sink = pa.BufferOutputStream()
    # Read by Arrow, which lets go of the interpreter: the requests in work are not held up.
    options = pa_json.ParseOptions(explicit_schema=AUDIT, unexpected_field_behavior="ignore")
    table = pa_json.read_json(pa.BufferReader(lines.whole), parse_options=options)
    pq.write_table(table.select(AUDIT.names).cast(AUDIT), sink, compression="zstd")
    return bytes(sink.getvalue())


def rolled_already(places: AuditPlaces, stem: str) -> bool:
    """Whether the file of a journal stands, in whatever format."""
    infos = places.files.get_file_info([f"{places.base}/{stem}.{form}" for form in FORMATS])
    return any(info.type is pafs.FileType.File for info in infos)


def put_file(places: AuditPlaces, name: str, content: bytes) -> None:
    """Write a whole file below the audit folder, or nothing. Raises OSError."""
    folder, _, last = f"{places.base}/{name}".rpartition("/")
    if places.local:
        places.files.create_dir(folder, recursive=True)
    temporary = f"{folder}/.{last}.tmp"
    with places.files.open_output_stream(temporary, compression=None) as stream:
        stream.write(content)
    if places.local:
        sync([temporary])
    places.files.move(temporary, f"{folder}/{last}")
    if places.local:
        sync([folder, places.base])


def sync(paths: Iterable[str | Path]) -> None:
    """Have files, or the names in folders, on the disk. Raises OSError."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
