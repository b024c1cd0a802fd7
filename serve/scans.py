"""Where uploads are read: each in a process of its own that is ended afterwards, few at a time. Knows no Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any

from clinical_reasoner.serving.schema import WHOLE_BODY
from clinical_reasoner.serving.upload_reader import job_line, read_answer
from clinical_reasoner.serving.uploads import Sent, Upload, UploadError, UploadRules

READER = "clinical_reasoner.serving.upload_reader"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")
"""Of the environment; the rest may hold keys, and a reader needs none."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS")
_MOST_ANSWER_BYTES = 64 * 2**20
"""Of a reader: more than its pictures, which are small, can be."""
_BROKE = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGXCPU}
"""Signals by which a file ends its reader; others come from outside."""


@dataclass(frozen=True)
class _Reader:
    process: subprocess.Popen[bytes]
    rules: threading.Thread
    """Writes the first line: it may be longer than a pipe holds, and the process is not yet reading."""


@dataclass(frozen=True)
class _Ended:
    """How a reader ended."""

    answer: bytes
    in_time: bool
    code: int
    """Exit status; minus the signal that ended it."""


class ScanRoom:
    """Reads uploads, `at_a_time` at once, with `max_waiting` behind them. Belongs to one event loop."""

    def __init__(self, rules: UploadRules) -> None:
        self._rules = rules
        self._first_line = rules.model_dump_json().encode() + b"\n"
        self._places = asyncio.Semaphore(rules.limits.at_a_time)
        self._inside = 0
        self._spare: _Reader | None = None
        self._keeps_spare = False

    def warm(self) -> None:
        """Start a reader in advance, now and after each upload: the next one then need not wait for its imports."""
        self._keeps_spare = True
        if self._spare is None:
            self._spare = self._start()

    def close(self) -> None:
        """End the spare reader. One that is at work ends with its request."""
        self._keeps_spare = False
        if self._spare is not None:
            _end(self._spare)
            self._spare = None

    async def read(self, sent: Sent, patient_fields: Mapping[str, Any]) -> Upload:
        """What `read_upload` makes of the files. Raises UploadError, with 503 where too many wait, and with 413 or 422
        where reading took more memory or time than it may; a cancelled call ends its reader."""
        limits = self._rules.limits
        if self._inside >= limits.at_a_time + limits.max_waiting:
            raise UploadError(WHOLE_BODY, "too many scans are waiting to be read", 503)
        self._inside += 1
        try:
            async with self._places:
                upload = await self._read(job_line(sent, dict(patient_fields), self._rules))
                return replace(upload, digests=sent.digests)
        finally:
            self._inside -= 1

    async def _read(self, line: bytes) -> Upload:
        reader, self._spare = self._spare, None
        if reader is None or reader.process.poll() is not None:
            reader = self._start()
        try:
            ended = await asyncio.to_thread(_converse, reader, line, self._rules.limits.timeout_s)
        finally:
            _end(reader)
            if self._keeps_spare:
                self.warm()
        return _outcome(ended, self._rules.limits.timeout_s)

    def _start(self) -> _Reader:
        """A reader that has its rules. Its errors go nowhere: a traceback may hold what was sent."""
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= dict.fromkeys(_ONE_THREAD, "1")
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )
        rules = threading.Thread(target=_write, args=(process.stdin, self._first_line), daemon=True)
        rules.start()
        return _Reader(process, rules)


def _converse(reader: _Reader, line: bytes, timeout_s: float) -> _Ended:
    """Give the reader its work and wait for the answer, at most `timeout_s`; the reader has then ended."""
    process, late = reader.process, threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout_s, stop)
    timer.start()
    try:
        reader.rules.join()
        _write(process.stdin, line)
        assert process.stdout is not None
        answer = process.stdout.read(_MOST_ANSWER_BYTES + 1)
        if len(answer) > _MOST_ANSWER_BYTES:
            process.kill()
        return _Ended(answer, not late.is_set(), process.wait())
    finally:
        timer.cancel()


def _outcome(ended: _Ended, timeout_s: float) -> Upload:
    if not ended.in_time:
        raise UploadError(WHOLE_BODY, f"not read within {timeout_s:g} s")
    if ended.code < 0 and -ended.code in _BROKE:
        raise UploadError(WHOLE_BODY, "cannot be read: it broke its reader")
    try:
        return read_answer(ended.answer)
    except ValueError:
        raise UploadError(WHOLE_BODY, f"its reader ended without an answer ({ended.code}); try again", 503) from None


def _write(pipe: IO[bytes] | None, content: bytes) -> None:
    assert pipe is not None
    with suppress(OSError, ValueError):  # it ended, which its exit status tells
        pipe.write(content)
        pipe.flush()


def _end(reader: _Reader) -> None:
    process = reader.process
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what could not be written any more
                pipe.close()
