"""The run folder, local or on S3: tables, other files and one manifest for each finished stage.

A manifest is written last. A stage that has one with the same settings and inputs is skipped; a stage that was killed
has none and is made again. Everything goes through `pyarrow.fs`, so no caller sees where the folder lies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from clinical_reasoner import __version__
from clinical_reasoner.errors import UserError
from clinical_reasoner.manifests import Manifest as Manifest
from clinical_reasoner.manifests import difference, identity
from clinical_reasoner.records import REJECTED as REJECTED_ROWS
from clinical_reasoner.storage import RunError as RunError
from clinical_reasoner.storage import filesystem

TABLE_FILE = "part-00000.parquet"
MANIFEST_FILE = "manifest.json"
REJECTED = "rejected"
WORK = "work"
ROWS_TOGETHER = 2048
"""Rows that are in memory at a time where a table is read or written row by row."""


class TableWriter:
    """A table to which rows are added one by one."""

    def __init__(self, parquet: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._parquet, self._schema = parquet, schema
        self._waiting: list[dict[str, Any]] = []
        self.rows = 0
        """Rows so far."""

    def add(self, row: BaseModel | Mapping[str, Any]) -> None:
        """Add one row of the schema."""
        self._waiting.append(row.model_dump() if isinstance(row, BaseModel) else dict(row))
        self.rows += 1
        if len(self._waiting) == ROWS_TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Write what waits in memory."""
        self._parquet.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting.clear()


class RunFolder:
    """Folder of one run. A stage is a folder below it, such as `patients` or `students/label_only`."""

    def __init__(self, path: str) -> None:
        self._fs, self._base = filesystem(path)
        self._local = isinstance(self._fs, pafs.LocalFileSystem)
        self.path = self._base if self._local else f"s3://{self._base}"
        """Absolute path, or `s3://` address."""

    def child(self, *parts: str) -> str:
        """Path or address of something in the run folder, for readers and writers of other libraries."""
        return "/".join((self.path, *parts))

    def manifest(self, stage: str) -> Manifest | None:
        """Manifest of a finished stage; None if the stage never finished."""
        name = f"{_stage(stage)}/{MANIFEST_FILE}"
        if not self.exists(name):
            return None
        try:
            return Manifest.model_validate_json(self.read_bytes(name))
        except ValidationError as error:
            raise RunError(
                f"{self.child(name)}: no manifest of version {__version__}; "
                f"take another run.path=..., or run.overwrite=true to make stage {stage!r} again"
            ) from error

    def finished(
        self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], overwrite: bool = False
    ) -> bool:
        """Whether this stage can be skipped.

        False without a manifest; what a killed run left there stays, so that a stage can resume from it: `write_table`
        replaces it, and a stage that writes files by other means and does not resume calls `clear` first.
        A manifest of other settings or inputs raises RunError, or clears the stage if `overwrite` is true.
        """
        try:
            found = self.manifest(stage)
        except RunError:
            if not overwrite:
                raise
        else:
            if found is None:
                return False
            if found.identity == identity(stage, settings, inputs):
                return True
            if not overwrite:
                raise RunError(
                    f"{self.path}: stage {stage!r} was made {difference(found, settings, inputs)}; take another "
                    "run.path=..., or run.overwrite=true to make this stage and those after it again"
                )
        self.clear(stage)
        return False

    def clear(self, stage: str) -> None:
        """Remove everything under the stage's folder, and its table of rejected rows."""
        folder = self._at(_stage(stage))
        # The manifest goes first: a clearing that is killed half-way must not leave a stage that looks finished.
        for file in (f"{folder}/{MANIFEST_FILE}", self._at(_rejected_file(stage))):
            if self._type(file) is pafs.FileType.File:
                self._fs.delete_file(file)
        if self._type(folder) is pafs.FileType.Directory:
            self._fs.delete_dir(folder)

    def clear_work(self, stage: str) -> None:
        """Remove the unfinished work of a stage, whatever settings it was of."""
        for folder in self._folders(self._at(f"{WORK}/{_stage(stage)}".rpartition("/")[0])):
            if folder.startswith(f"{self._at(WORK)}/{stage}-"):
                self._fs.delete_dir(folder)

    def write_table(self, stage: str, table: pa.Table) -> None:
        """Write the stage's table as its only Parquet file; calling it again replaces the table."""
        folder = self._at(_stage(stage))
        with self._replacing(f"{folder}/{TABLE_FILE}") as stream:
            pq.write_table(table, stream)
        self._remove_other_tables(folder)

    def _remove_other_tables(self, folder: str) -> None:
        for file in self._files(folder):
            if file.endswith(".parquet") and not file.endswith(f"/{TABLE_FILE}"):
                self._fs.delete_file(file)

    @contextmanager
    def table_writer(self, stage: str, schema: pa.Schema) -> Iterator[TableWriter]:
        """As `write_table`, for rows that come one by one; the file stands once the context ends without an error."""
        with self._writing(f"{self._at(_stage(stage))}/{TABLE_FILE}", schema) as writer:
            yield writer
        self._remove_other_tables(self._at(_stage(stage)))

    @contextmanager
    def rejected_writer(self, stage: str) -> Iterator[TableWriter]:
        """As `write_rejected`, for rows that come one by one; the file stands even when the stage ends in an error."""
        file = self._at(_rejected_file(stage))
        failure: Exception | None = None
        with self._writing(file, REJECTED_ROWS) as writer:
            try:
                yield writer
            except UserError as error:
                failure = error
        if failure is not None:
            raise failure

    @contextmanager
    def _writing(self, file: str, schema: pa.Schema) -> Iterator[TableWriter]:
        with self._replacing(file) as stream, pq.ParquetWriter(stream, schema) as parquet:
            writer = TableWriter(parquet, schema)
            yield writer
            writer.flush()

    def batches(self, stage: str, schema: pa.Schema) -> Iterator[pa.Table]:
        """The rows of a stage's table, ROWS_TOGETHER at a time and in their order."""
        for file in self._tables(stage):
            with self.parquet(file) as table:
                for batch in table.iter_batches(batch_size=ROWS_TOGETHER, columns=schema.names):
                    yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)

    def read_table(self, stage: str, schema: pa.Schema | None = None) -> pa.Table:
        """All Parquet files of a stage as one table, with exactly the schema's columns if a schema is given."""
        files = self._tables(stage)
        if schema is None:
            parts = [pq.read_table(file, filesystem=self._fs) for file in files]
            return pa.concat_tables(parts, promote_options="default")
        for file in files:
            missing = sorted(set(schema.names) - set(pq.read_schema(file, filesystem=self._fs).names))
            if missing:
                raise RunError(f"{file}: no column {', '.join(missing)}; make stage {stage!r} again with this version")
        parts = [pq.read_table(file, filesystem=self._fs, columns=schema.names) for file in files]
        return pa.concat_tables([part.select(schema.names).cast(schema) for part in parts])

    def parts(self, stage: str) -> list[str]:
        """Parquet files of a stage, finished or not."""
        return [file for file in self._files(self._at(_inside(stage))) if file.endswith(".parquet")]

    @contextmanager
    def parquet(self, part: str) -> Iterator[pq.ParquetFile]:
        """One of the files of `parts`."""
        with self._fs.open_input_file(part) as stream, pq.ParquetFile(stream) as file:
            yield file

    def _tables(self, stage: str) -> list[str]:
        files = self.parts(stage)
        if not files:
            raise RunError(f"{self.child(stage)}: no table; run the job that makes stage {stage!r} first")
        return files

    def count_rows(self, stage: str) -> int:
        """Rows in the Parquet files of a stage, finished or not; a file that a killed writer left cut off has none."""
        rows = 0
        for file in self.parts(stage):
            try:
                rows += pq.read_metadata(file, filesystem=self._fs).num_rows
            except (pa.ArrowInvalid, FileNotFoundError):  # no footer, or just now moved away
                continue
        return rows

    def write_rejected(self, stage: str, table: pa.Table) -> None:
        """Write (or replace) the rows that the stage could not use."""
        with self._replacing(self._at(_rejected_file(stage))) as stream:
            pq.write_table(table, stream)

    def finish(
        self,
        stage: str,
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        rows_in: int,
        rows_out: int,
        rows_rejected: int,
        seconds: float,
        details: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Write the manifest, after everything else of the stage. Raises RunError if rows are unaccounted for."""
        folder = self.child(_stage(stage))
        if rows_in != rows_out + rows_rejected:
            raise RunError(
                f"{folder}: {rows_in} rows in, but {rows_out} out and {rows_rejected} rejected; "
                "nothing is dropped in silence: write each row that cannot be used with write_rejected"
            )
        manifest = Manifest(
            stage=stage,
            identity=identity(stage, settings, inputs),
            settings=to_jsonable_python(settings),
            inputs=dict(inputs),
            rows_in=rows_in,
            rows_out=rows_out,
            rows_rejected=rows_rejected,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            seconds=seconds,
            details=to_jsonable_python(details or {}),
        )
        summary = f"{REJECTED}/{MANIFEST_FILE}"
        rows = json.loads(self.read_bytes(summary))["rows_rejected"] if self.exists(summary) else {}
        rows[stage] = rows_rejected
        self.write_bytes(summary, _indented({"rows_rejected": rows}))
        self.write_bytes(f"{stage}/{MANIFEST_FILE}", _indented(manifest.model_dump(mode="json")))
        return manifest

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a whole file of the run folder, or nothing."""
        with self._replacing(self._at(_inside(name))) as stream:
            stream.write(data)

    def read_bytes(self, name: str) -> bytes:
        """Content of a file of the run folder. Raises RunError if there is none."""
        if not self.exists(name):
            raise RunError(f"{self.child(name)}: no such file; run the job that makes it first")
        # Left to itself pyarrow would decompress what is named .gz.
        with self._fs.open_input_stream(self._at(name), compression=None) as stream:
            return bytes(stream.read())

    def put_folder(self, local: str, name: str) -> None:
        """Copy a local folder to `name`, replacing what is there."""
        target = self._at(_inside(name))
        if self._type(target) is pafs.FileType.Directory:
            self._fs.delete_dir(target)
        self._fs.create_dir(target)
        pafs.copy_files(os.path.abspath(local), target, pafs.LocalFileSystem(), self._fs)

    def local_folder(self, name: str, scratch: str) -> str:
        """A folder of the run as a local path: the folder itself, or for S3 a copy below `scratch`."""
        if self._local:
            return self.child(_inside(name))
        target = os.path.join(scratch, name)
        os.makedirs(target, exist_ok=True)
        pafs.copy_files(self._at(_inside(name)), target, self._fs, pafs.LocalFileSystem())
        return target

    def exists(self, name: str) -> bool:
        """Whether the run folder holds a file or folder of this name."""
        return self._type(self._at(_inside(name))) is not pafs.FileType.NotFound

    def _at(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _type(self, file: str) -> pafs.FileType:
        return self._fs.get_file_info(file).type

    def _files(self, folder: str) -> list[str]:
        entries = self._fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return sorted(entry.path for entry in entries if entry.type is pafs.FileType.File)

    def _folders(self, folder: str) -> list[str]:
        entries = self._fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return sorted(entry.path for entry in entries if entry.type is pafs.FileType.Directory)

    @contextmanager
    def _replacing(self, file: str) -> Iterator[pa.NativeFile]:
        """A stream whose content takes the place of `file` once all of it is written."""
        folder, _, name = file.rpartition("/")
        if self._local:
            self._fs.create_dir(folder, recursive=True)
        # The name is fixed, so that what a killed writer left is overwritten, not collected.
        temporary = f"{folder}/.{name}.tmp"
        with self._fs.open_output_stream(temporary) as stream:
            yield stream
        self._fs.move(temporary, file)


def _inside(name: str) -> str:
    """The name, if it stays within the run folder; `clear` must never reach anything else."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise RunError(f"{name!r} is no name within a run folder; write it like patients or students/label_only")
    return name


def _stage(name: str) -> str:
    if _inside(name).split("/")[0] == REJECTED:
        raise RunError(f"{name!r} is no stage: {REJECTED}/ holds the rejected rows of all stages")
    return name


def _rejected_file(stage: str) -> str:
    return f"{REJECTED}/{_stage(stage).replace('/', '-')}.parquet"


def _indented(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
