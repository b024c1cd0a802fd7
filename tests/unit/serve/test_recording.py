"""Many requests that wait for one write: durable on return, few fsyncs, errors to everyone whom they concern."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import AuditError, AuditRow
from clinical_reasoner.serving.audit_log import AuditLog, open_audit_log
from clinical_reasoner.serving.audit_reading import AuditQuery, find_records
from serve import recording
from serve.recording import Recorder
from tests.audit_rows import audit_row


def found(run: Path) -> list[str]:
    return [row.request_id for row in find_records(AuditConfig(), str(run), AuditQuery())]


def recorder(run: Path, **config: Any) -> Recorder:
    return Recorder(open_audit_log(AuditConfig(**config), str(run)))


class Gate:
    """Holds up every append of a log until it is opened."""

    def __init__(self, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.sizes = threading.Event(), list[int]()
        self._append = log.append
        monkeypatch.setattr(log, "append", self._wait)

    def _wait(self, rows: Sequence[AuditRow]) -> None:
        assert self.open.wait(10)
        self.sizes.append(len(rows))
        self._append(rows)


def test_record_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    async def run() -> None:
        one = recorder(tmp_path)
        await one.record(audit_row("a"))
        assert found(tmp_path) == ["a"]
        await one.close()
        with pytest.raises(AuditError, match="shutting down"):
            await one.record(audit_row("b"))

    asyncio.run(run())
    assert found(tmp_path) == ["a"]
    assert list((tmp_path / "audit/journal").iterdir()) == []


def test_those_who_wait_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synced = os.fsync, list[int]()

    def counting(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counting)

    async def run() -> None:
        one = recorder(tmp_path)

        async def client(name: int) -> None:
            for number in range(20):
                await one.record(audit_row(f"c{name}-{number}"))

        await asyncio.gather(*(client(name) for name in range(32)))
        assert len(synced) < 640 / 4
        await one.close()

    asyncio.run(run())
    records = found(tmp_path)
    assert len(records) == len(set(records)) == 640


def test_group_is_never_larger_than_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[int]:
        log = open_audit_log(AuditConfig(roll_rows=4), str(tmp_path))
        gate, one = Gate(log, monkeypatch), Recorder(log)
        waiting = [asyncio.create_task(one.record(audit_row(f"r-{number}"))) for number in range(10)]
        await asyncio.sleep(0.05)
        gate.open.set()
        await asyncio.gather(*waiting)
        await one.close()
        return gate.sizes

    assert asyncio.run(run()) == [4, 4, 2]
    assert len(found(tmp_path)) == 10
    assert len(list((tmp_path / "audit").glob("????-*/*.parquet"))) == 3


def test_queue_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_WAITING_ROWS", 3)

    async def run() -> None:
        log = open_audit_log(AuditConfig(), str(tmp_path))
        gate, one = Gate(log, monkeypatch), Recorder(log)
        first = asyncio.create_task(one.record(audit_row("first")))
        await asyncio.sleep(0.05)  # it is being written, and waits no more
        waiting = [asyncio.create_task(one.record(audit_row(f"r-{number}"))) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(AuditError, match="3 audit records wait for the disk"):
            await one.record(audit_row("refused"))
        gate.open.set()
        await asyncio.gather(first, *waiting)
        await one.close()

    asyncio.run(run())
    assert found(tmp_path) == ["first", "r-0", "r-1", "r-2"]


def test_request_that_is_cancelled_while_it_waits_has_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        log = open_audit_log(AuditConfig(), str(tmp_path))
        gate, one = Gate(log, monkeypatch), Recorder(log)
        tasks = [asyncio.create_task(one.record(audit_row(name))) for name in ("a", "b")]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        gate.open.set()
        await one.close()

    asyncio.run(run())
    assert found(tmp_path) == ["a", "b"]


def test_error_reaches_all_who_wait_and_the_next_record_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        one, real = recorder(tmp_path), os.fsync

        def failing(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", failing)
        results = await asyncio.gather(*(one.record(audit_row(f"r-{n}")) for n in range(5)), return_exceptions=True)
        assert all(isinstance(result, AuditError) and "No space left" in str(result) for result in results)
        monkeypatch.setattr(os, "fsync", real)
        await one.record(audit_row("after"))
        await one.close()

    asyncio.run(run())
    assert found(tmp_path) == ["after"]


def test_files_are_made_in_the_background_and_an_error_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        one = recorder(tmp_path, roll_s=0.1)
        day = audit_day(tmp_path)
        day.write_text("a file where the day's folder has to be")
        await one.record(audit_row("a"))
        await until(lambda: found_error(caplog))
        await asyncio.sleep(0.3)
        assert found_error(caplog) == 1
        day.unlink()
        await until(lambda: day.is_dir() and any(day.glob("*.parquet")))
        await one.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert found(tmp_path) == ["a"]


def test_full_journal_becomes_a_file_without_waiting_for_the_time(tmp_path: Path) -> None:
    async def run() -> None:
        one = recorder(tmp_path, roll_rows=2, roll_s=3600)
        for number in range(4):
            await one.record(audit_row(f"r-{number}"))
        await until(lambda: len(list((tmp_path / "audit").glob("????-*/*.parquet"))) == 2)
        await one.close()

    asyncio.run(run())


def audit_day(run: Path) -> Path:
    return run / "audit" / time.strftime("%Y-%m-%d", time.gmtime())


def found_error(caplog: pytest.LogCaptureFixture) -> int:
    return sum("no file can be written" in record.message for record in caplog.records)


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.02)
