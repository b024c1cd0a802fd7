"""Records on the disk before the answer: kills, torn lines, full disks, several writers, rolling."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import AUDIT, AuditError
from clinical_reasoner.serving.audit_log import MOST_WAITING, open_audit_log
from clinical_reasoner.serving.audit_reading import AuditQuery, find_records
from tests.audit_rows import audit_row

ROOT = Path(__file__).parents[3]


def found(run: Path, **query: Any) -> list[str]:
    return [row.request_id for row in find_records(AuditConfig(), str(run), AuditQuery(**query))]


def rolled(run: Path) -> list[Path]:
    return sorted(file for file in (run / "audit").glob("????-??-??/*") if not file.name.startswith("."))


def waiting(run: Path) -> list[Path]:
    return sorted((run / "audit/journal").glob("*.jsonl"))


def writer(run: Path, name: str, roll_rows: int, fsize: int | None = None) -> subprocess.Popen[str]:
    """A process that writes until it is killed; none of its files may grow above `fsize` bytes."""
    limit = None if fsize is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (fsize, fsize))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.audit_rows", str(run), name, str(roll_rows)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "platform:."},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def killed_after(processes: Sequence[subprocess.Popen[str]], lines: int) -> list[list[str]]:
    """What each has printed when it was killed, at `lines` lines or a little later."""
    heads = [[process.stdout.readline().strip() for _ in range(lines)] for process in processes if process.stdout]
    for process in processes:
        process.send_signal(signal.SIGKILL)
    printed = []
    for process, head in zip(processes, heads, strict=True):
        text, _ = process.communicate(timeout=30)
        ended = text[: text.rfind("\n") + 1]
        printed.append(head + ended.splitlines())
    return printed


def test_killed_in_the_middle_every_acknowledged_record_is_there_once(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for kill in range(3):
        (printed,) = killed_after([writer(tmp_path, f"k{kill}", roll_rows=3)], 20 + 17 * kill)
        acknowledged += printed
    before = Counter(found(tmp_path))
    assert set(acknowledged) <= set(before)
    assert max(before.values()) == 1
    log = open_audit_log(AuditConfig(), str(tmp_path))  # the next start
    assert waiting(tmp_path) == []
    assert Counter(found(tmp_path)) == before
    log.close()


def test_two_processes_write_into_one_folder(tmp_path: Path) -> None:
    both = [writer(tmp_path, "one", roll_rows=5), writer(tmp_path, "two", roll_rows=5)]
    for _ in range(20):  # a third one looks for what was left behind, and leaves alone what is in use
        open_audit_log(AuditConfig(), str(tmp_path)).close()
    printed = killed_after(both, 50)
    records = Counter(found(tmp_path))
    assert {line for lines in printed for line in lines} <= set(records)
    assert max(records.values()) == 1


def test_full_disk_is_an_error_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """No file may grow above 2,000 bytes: the write that reaches it is cut off in the middle of a line."""
    (printed,) = killed_after([writer(tmp_path, "full", roll_rows=1000, fsize=2000)], 60)
    records = Counter(found(tmp_path))
    acknowledged = [line for line in printed if re.fullmatch(r"full-\d+", line)]
    assert any("no audit record can be written: OSError (File too large)" in line for line in printed)
    assert len(acknowledged) > 10
    assert set(acknowledged) <= set(records)
    assert max(records.values()) == 1


def test_recovers_when_there_is_space_again(tmp_path: Path) -> None:
    code = """
import resource, sys
from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import AuditError
from clinical_reasoner.serving.audit_log import open_audit_log
from tests.audit_rows import audit_row
log = open_audit_log(AuditConfig(), sys.argv[1])
log.append([audit_row("before")])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for n in range(20):
    try:
        log.append([audit_row(f"lost-{n}")])
    except AuditError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append([audit_row("after")])
log.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "platform:."},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 20
    assert all("no audit record can be written: OSError (File too large)" in line for line in lines)
    assert found(tmp_path) == ["after", "before"]  # of the same time, by their id
    assert waiting(tmp_path) == []


def test_group_that_is_cut_off_is_refused_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_audit_log(AuditConfig(), str(tmp_path))
    log.append([audit_row("a")])
    real = os.fsync

    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(AuditError, match="Input/output error"):
        log.append([audit_row("b"), audit_row("c")])
    monkeypatch.setattr(os, "fsync", real)
    assert found(tmp_path) == ["a"]
    log.append([audit_row("d")])
    log.close()
    assert found(tmp_path) == ["a", "d"]


def test_torn_last_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed_after([writer(tmp_path, "torn", roll_rows=1000)], 3)
    whole = found(tmp_path)
    (journal,) = waiting(tmp_path) or [rolled(tmp_path)[0]]
    left = tmp_path / "audit/journal/20260131T090500-0123456789ab-00001.jsonl"
    left.write_bytes(audit_row("whole").model_dump_json().encode() + b"\n" + b'{"request_id": "to')
    assert journal.exists()
    assert sorted(found(tmp_path)) == sorted([*whole, "whole"])
    with caplog.at_level(logging.WARNING):
        open_audit_log(AuditConfig(), str(tmp_path)).close()
    assert "cut-off line" in caplog.text
    assert sorted(found(tmp_path)) == sorted([*whole, "whole"])
    assert (tmp_path / "audit/2026-01-31/090500-0123456789ab-00001.parquet").exists()


def test_damaged_line_is_kept_aside_and_the_others_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "audit/journal"
    folder.mkdir(parents=True)
    lines = [audit_row("a").model_dump_json(), "\x00\x00", "3", audit_row("b").model_dump_json(), ""]
    (folder / "20260131T090500-0123456789ab-00001.jsonl").write_text("\n".join(lines))
    open_audit_log(AuditConfig(), str(tmp_path)).close()
    assert "2 lines are damaged" in caplog.text
    assert found(tmp_path) == ["a", "b"]
    assert [file.name for file in folder.iterdir()] == ["20260131T090500-0123456789ab-00001.damaged"]


def test_journal_of_another_version_is_neither_lost_nor_in_the_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "audit/journal"
    folder.mkdir(parents=True)
    newer = {**audit_row("newer").model_dump(mode="json"), "column_of_tomorrow": [1]}
    (folder / "20260131T090500-0123456789ab-00001.jsonl").write_text(json.dumps(newer) + "\n")
    (folder / "20260131T090500-0123456789ab-00002.jsonl").write_text('{"request_id": "odd", "status": "fine"}\n')
    open_audit_log(AuditConfig(), str(tmp_path)).close()
    assert [file.name[-13:] for file in rolled(tmp_path)] == ["00001.parquet", "b-00002.jsonl"]
    assert "does not fit the columns" in caplog.text
    assert found(tmp_path, request_id="newer") == ["newer"]
    with pytest.raises(AuditError, match="a record that this version cannot read: time"):
        found(tmp_path, request_id="odd")


def test_crash_between_file_and_journal_leaves_one_record(tmp_path: Path) -> None:
    log = open_audit_log(AuditConfig(), str(tmp_path))
    log.append([audit_row("a")])
    (journal,) = waiting(tmp_path)
    content = journal.read_bytes()
    log.close()
    (file,) = rolled(tmp_path)
    before = file.stat().st_mtime_ns
    journal.write_bytes(content)
    assert found(tmp_path) == ["a"]
    open_audit_log(AuditConfig(format="jsonl"), str(tmp_path)).close()  # whatever the format is now
    assert waiting(tmp_path) == []
    assert rolled(tmp_path) == [file]
    assert file.stat().st_mtime_ns == before
    assert found(tmp_path) == ["a"]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_rolls_by_rows(tmp_path: Path, form: str) -> None:
    config = AuditConfig.model_validate({"format": form, "roll_rows": 3})
    log = open_audit_log(config, str(tmp_path))
    log.append([audit_row("a"), audit_row("b")])
    log.append([audit_row("c"), audit_row("d")])  # three do not fit with them
    log.append([audit_row("e")])
    log.roll()
    log.append([audit_row("f")])
    files = rolled(tmp_path)
    assert all(re.fullmatch(rf"\d{{6}}-[0-9a-f]{{12}}-0000\d\.{form}", file.name) for file in files)
    assert len(files) == 2
    if form == "parquet":
        assert [pq.read_table(file).column("request_id").to_pylist() for file in files] == [["a", "b"], ["c", "d", "e"]]
        assert pq.read_schema(files[0]).remove_metadata() == AUDIT
    else:
        assert [json.loads(line)["request_id"] for line in files[1].read_text().splitlines()] == ["c", "d", "e"]
    assert found(tmp_path) == list("abcdef")
    log.close()
    assert len(rolled(tmp_path)) == 3
    assert found(tmp_path) == list("abcdef")


def test_rolls_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_audit_log(AuditConfig(roll_s=3600), str(tmp_path))
    log.append([audit_row("a")])
    log.roll()
    assert rolled(tmp_path) == []
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 3600)
    log.roll()
    assert len(rolled(tmp_path)) == 1
    log.roll()
    assert waiting(tmp_path) == []
    log.close()
    assert len(rolled(tmp_path)) == 1, "no empty files"


def test_no_file_has_records_of_two_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        moment = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.moment

    monkeypatch.setattr("clinical_reasoner.serving.audit_log.datetime", Clock)
    log = open_audit_log(AuditConfig(), str(tmp_path))
    log.append([audit_row("a", time="2026-01-31T23:59:58.000Z")])
    Clock.moment = datetime(2026, 2, 1, 0, 0, 0, tzinfo=UTC)
    log.append([audit_row("b", time="2026-01-31T23:59:59.000Z")])
    log.append([audit_row("c", time="2026-02-01T00:00:00.000Z")])
    log.close()
    assert [file.parent.name for file in rolled(tmp_path)] == ["2026-01-31", "2026-02-01"]
    assert found(tmp_path, until="2026-02-01") == ["a", "b"]
    assert found(tmp_path, since="2026-02-01") == ["c"]
    assert found(tmp_path, since="2026-01-31T23:59:59") == ["b", "c"]


def test_files_that_cannot_be_written_stop_the_endpoint_after_a_while_and_not_at_once(tmp_path: Path) -> None:
    log = open_audit_log(AuditConfig(roll_rows=1), str(tmp_path))
    in_the_way = tmp_path / "audit" / f"{datetime.now(UTC):%Y-%m-%d}"
    in_the_way.write_text("a file where the day's folder has to be")
    log.append([audit_row("r-0")])
    with pytest.raises(AuditError, match="no file can be written"):
        log.roll()
    for number in range(1, MOST_WAITING):
        log.append([audit_row(f"r-{number}")])
    with pytest.raises(AuditError, match=r"10 files of audit records wait: .*no file can be written"):
        log.append([audit_row("refused")])
    in_the_way.unlink()
    log.roll()
    log.append([audit_row("again")])
    log.close()
    assert found(tmp_path) == ["again", *(f"r-{number}" for number in range(MOST_WAITING))]


def test_folder_that_cannot_be_one_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("")
    with pytest.raises(AuditError, match=re.escape(str(tmp_path / "audit"))):
        open_audit_log(AuditConfig(), str(tmp_path))
    with pytest.raises(AuditError, match=r"set serving\.audit\.journal"):
        open_audit_log(AuditConfig(path="s3://bucket/audit"), str(tmp_path))
    with pytest.raises(AuditError, match=r"serving\.audit\.path"):
        open_audit_log(AuditConfig(path="gs://bucket/audit"), str(tmp_path))
