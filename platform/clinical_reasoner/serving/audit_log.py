"""Write audit records: into a journal that is on the disk before an answer goes out, from there into rolled files.

Nothing acknowledged is lost while the journal's disk lives, and nothing is there twice: a process that is killed
leaves its journal, and the next start, or any other replica, makes the file of it. With files on S3 the loss of the
journal's disk loses what was not uploaded: the records of up to `roll_s` seconds, and while S3 cannot be reached those
of up to MOST_WAITING files. A record may be of an answer that never reached its client, never the other way round.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

import pyarrow as pa

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import AuditError, AuditRow
from clinical_reasoner.serving.audit_files import (
    AuditPlaces,
    audit_places,
    file_content,
    journal_name,
    journals,
    of_day,
    put_file,
    read_lines,
    rolled_already,
    rolled_stem,
)
from clinical_reasoner.serving.audit_journal import Journal, abandoned, new_journal

LOG = logging.getLogger(__name__)
MOST_WAITING = 10
"""Full journals that wait for a place which cannot be written; with so many, no more records are taken."""


class AuditLog:
    """One writer. `append` may run beside `roll`, each in a thread of its own."""

    def __init__(self, places: AuditPlaces, config: AuditConfig) -> None:
        if places.journal is None:
            raise AuditError(
                f"{places.path}: records wait on a local disk until they are uploaded; set serving.audit.journal to a "
                "folder on a disk that outlives the process"
            )
        self.config = config
        self._places, self._folder = places, places.journal
        self._writer, self._number = uuid4().hex[:12], 0
        self._current: Journal | None = None
        self._full: list[Journal] = []
        self._failure: str | None = None
        self._lock = threading.Lock()
        """Of the four above; held for the time of an fsync."""
        self._rolling = threading.Lock()

    @property
    def waiting(self) -> int:
        """Journals that are full and in no file yet."""
        return len(self._full)

    def append(self, rows: Sequence[AuditRow]) -> None:
        """Returns when all rows, at most `roll_rows`, are on the disk, with one fsync; raises AuditError when none is.

        It works again as soon as there is space.
        """
        lines = b"".join(row.model_dump_json(exclude_none=True).encode() + b"\n" for row in rows)
        with self._lock:
            if self._failure is not None and len(self._full) >= MOST_WAITING:
                raise AuditError(f"{len(self._full)} files of audit records wait: {self._failure}")
            try:
                journal = self._journal(len(rows))
                journal.append(lines, len(rows))
            except OSError as error:
                self._seal()
                raise AuditError(f"{self._folder}: no audit record can be written: {_reason(error)}") from error
            if journal.rows >= self.config.roll_rows:
                self._seal()

    def roll(self, everything: bool = False) -> None:
        """Make files of the journals that are full or old enough (`everything`: of all), and of those left behind.

        Raises AuditError where that is not possible; they are tried again next time.
        """
        with self._rolling:
            with self._lock:
                if self._current is not None and (everything or self._current.age_s >= self.config.roll_s):
                    self._seal()
                waiting = tuple(self._full)
            try:
                for journal in waiting:
                    self._make_file(journal)
                    with self._lock:
                        self._full.remove(journal)
                self._adopt()
            except (OSError, pa.ArrowException) as error:
                self._failure = f"{self._places.path}: no file can be written: {_reason(error)}"
                raise AuditError(self._failure) from error
            self._failure = None

    def close(self) -> None:
        """Make files of everything. What could not be written stays in its journal for the next start."""
        try:
            self.roll(everything=True)
        finally:
            with self._lock:
                for journal in self._full:
                    journal.close()
                self._full.clear()

    def _journal(self, rows: int) -> Journal:
        """The open journal, or a new one where these rows would be too many, or of another day."""
        now = datetime.now(UTC)
        current = self._current
        if current is not None and (current.rows + rows > self.config.roll_rows or not of_day(current.path.name, now)):
            self._seal()
        while self._current is None:
            self._number += 1
            name = journal_name(now, self._writer, self._number)
            self._current = new_journal(self._folder / name)
        return self._current

    def _seal(self) -> None:
        """Let nothing more be appended to the open journal. One without rows is deleted."""
        journal, self._current = self._current, None
        if journal is not None and journal.rows:
            self._full.append(journal)
        elif journal is not None:
            with suppress(OSError):  # `_adopt` removes it later
                journal.remove()

    def _adopt(self) -> None:
        for path in journals(self._folder):
            journal = abandoned(path)
            if journal is None:
                continue
            try:
                self._make_file(journal)
            except BaseException:
                journal.close()
                raise

    def _make_file(self, journal: Journal) -> None:
        """Write the journal's file unless it stands, and delete the journal."""
        stem, lines = rolled_stem(journal.path.name), read_lines(journal.content())
        if lines.rows and not rolled_already(self._places, stem):
            form = self.config.format
            try:
                content = file_content(lines, form)
            except pa.ArrowInvalid:
                LOG.error("%s: a record does not fit the columns of this version; its file is JSONL", journal.path)
                form, content = "jsonl", lines.whole
            put_file(self._places, f"{stem}.{form}", content)
        if lines.cut_off:
            LOG.warning("%s: a cut-off line, of a record never acknowledged, was left out", journal.path)
        if lines.damaged:
            LOG.error("%s: %d lines are damaged; kept as .damaged", journal.path, lines.damaged)
            journal.set_aside()
        else:
            journal.remove()


def open_audit_log(config: AuditConfig, run_path: str) -> AuditLog:
    """The log of an endpoint, once what an earlier process left has its files. Raises AuditError where the folder
    cannot be written."""
    places = audit_places(config, run_path)
    log = AuditLog(places, config)
    try:
        if places.local:
            places.files.create_dir(places.base, recursive=True)
        places.files.get_file_info(places.base)  # a wrong bucket or key of S3 is found here
    except OSError as error:
        raise AuditError(f"{places.path}: {_reason(error)}") from error
    log.roll()
    return log


def _reason(error: Exception) -> str:
    """Kind of an error, and what the system or S3 says to it: places, and nothing of any record."""
    text = getattr(error, "strerror", None) or (
        str(error).partition("\n")[0][:300] if isinstance(error, OSError) else ""
    )
    return f"{type(error).__name__} ({text})" if text else type(error).__name__
