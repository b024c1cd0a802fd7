"""The asynchronous side of the audit record: many requests wait for one write to the disk."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from clinical_reasoner.serving.audit import AuditError, AuditRow
from clinical_reasoner.serving.audit_log import AuditLog

LOG = logging.getLogger(__name__)
MOST_WAITING_ROWS = 4096
"""Records that wait for the disk; one more is refused."""
LOOK_S = 5.0
"""Longest time between two looks for journals that are old enough to become files, seconds."""


class Recorder:
    """For one event loop. Whatever comes while one fsync runs is written together with the next one."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._waiting: deque[tuple[AuditRow, asyncio.Future[None]]] = deque()
        # A thread each: a slow upload holds up no record.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="audit")
        self._writing: asyncio.Task[None] | None = None
        self._rolling: asyncio.Task[None] | None = None
        self._full = asyncio.Event()
        self._closed = False

    async def record(self, row: AuditRow) -> None:
        """Returns when the row is on the disk. Raises AuditError when it is not: then nothing may be answered.

        A row is written even where its request is cancelled while it waits.
        """
        if self._closed:
            raise AuditError("the audit record is closed: the endpoint is shutting down")
        if len(self._waiting) >= MOST_WAITING_ROWS:
            raise AuditError(f"{len(self._waiting)} audit records wait for the disk")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        if self._rolling is None or self._rolling.done():
            self._rolling = asyncio.create_task(self._roll())
        await done

    async def close(self) -> None:
        """Write what waits, make files of it, and take no more. Raises AuditError where files cannot be written; their
        records stay in journals for the next start."""
        self._closed = True
        if self._writing is not None:
            await self._writing
        if self._rolling is not None:
            self._rolling.cancel()
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._log.close)
        finally:
            self._threads.shutdown(wait=False)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            count = min(len(self._waiting), self._log.config.roll_rows)
            group = [self._waiting.popleft() for _ in range(count)]
            try:
                await loop.run_in_executor(self._threads, self._log.append, [row for row, _ in group])
            except Exception as error:  # whatever it is, those who wait must hear of it
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                continue
            for _, done in group:
                if not done.done():  # cancelled
                    done.set_result(None)
            if self._log.waiting:
                self._full.set()

    async def _roll(self) -> None:
        pause, failure = min(self._log.config.roll_s / 2, LOOK_S), ""
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._log.roll)
                failure = ""
            except AuditError as error:
                if str(error) != failure:  # said once, not every few seconds
                    LOG.error("audit: %s", error)
                failure = str(error)
                self._full.clear()
                await asyncio.sleep(pause)
