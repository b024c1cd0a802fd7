"""The room where uploads are read: real processes, ended by time, memory and crowding, with nothing left behind."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.serving.upload_reader import read_answer
from clinical_reasoner.serving.uploads import Sent, Upload, UploadError, UploadRules, read_upload
from clinical_reasoner.task import DiagnosisTask
from serve.problems import Refused
from serve.scans import ScanRoom
from tests.unit.serving.upload_files import kept, nib, nifti, png

MIB = 2**20
HEAVY = (300, 300, 300)
"""A scan within all limits of files whose reading takes a second and some hundred MiB."""


def rules(task: DiagnosisTask, **limits: float) -> UploadRules:
    return UploadRules(task=task, cut_points=(-1.0, -2.0), limits=UploadsConfig.model_validate(limits))


@pytest.fixture
def sent(tmp_path: Path) -> Sent:
    return Sent(scan=kept(tmp_path, gzip.compress(nifti(head()))), slices=(kept(tmp_path, png(9, 7), "slices-0"),))


def head(shape: tuple[int, int, int] = (64, 64, 64)) -> np.ndarray:
    """A ball of some contrast."""
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    away = sum((axis - side / 2) ** 2 for axis, side in zip((x, y, z), shape, strict=True))
    return np.asarray(np.where(away < (min(shape) / 3) ** 2, 100 + x % 50, 0), np.int16)


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    noisy = head(HEAVY) + np.random.default_rng(5).integers(0, 16, HEAVY, np.int16)
    image = nib.Nifti1Image(noisy, np.diag([1.0, 1, 1, 1]))
    return Sent(scan=kept(tmp_path_factory.mktemp("heavy"), gzip.compress(image.to_bytes(), 1)))


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


def children() -> set[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return {pid for pid in map(int, listed.stdout.split()) if Path("/proc", str(pid), "exe").exists()}


def resident() -> int:
    """Memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def refused(room: ScanRoom, sent: Sent) -> UploadError:
    with pytest.raises(UploadError) as raised:
        asyncio.run(room.read(sent, {}))
    return raised.value


def test_a_process_of_its_own_gives_what_reading_gives(sent: Sent, task: DiagnosisTask) -> None:
    own = rules(task)
    upload = asyncio.run(ScanRoom(own).read(sent, {"age_years": 74.0, "sex": "female"}))
    assert upload == read_upload(sent, {}, own)
    assert len(upload.slices) == 5 and upload.picture


def test_a_refusal_of_the_reader_comes_back_as_it_was(tmp_path: Path, task: DiagnosisTask) -> None:
    error = refused(ScanRoom(rules(task)), Sent(scan=kept(tmp_path, nifti(vox_offset=1e9))))
    assert (error.field, error.status) == ("scan", 422) and "vox_offset" in error.message


def test_a_reader_that_takes_too_long_is_killed(heavy: Sent, task: DiagnosisTask) -> None:
    room = ScanRoom(rules(task, timeout_s=0.5))
    room.warm()
    time.sleep(4)  # its imports are done: what takes so long is the scan
    before, started = resident(), time.monotonic()
    error = refused(room, heavy)
    room.close()
    assert (error.field, error.status, error.message) == ("(body)", 422, "not read within 0.5 s")
    assert time.monotonic() - started < 4
    assert resident() - before < 32 * MIB


def test_a_reader_that_takes_too_much_memory_is_stopped(heavy: Sent, sent: Sent, task: DiagnosisTask) -> None:
    room = ScanRoom(rules(task, memory_gib=0.8))
    before = resident()
    error = refused(room, heavy)
    assert (error.status, error.message) == (413, "reading it takes more memory than it may")
    assert resident() - before < 32 * MIB
    assert asyncio.run(room.read(sent, {})).picture  # and the next one is read


def test_only_so_many_wait(sent: Sent, task: DiagnosisTask) -> None:
    room = ScanRoom(rules(task, at_a_time=1, max_waiting=1))

    async def one() -> Upload:
        with room.place():
            return await room.read(sent, {})

    async def crowd() -> list[Upload | BaseException]:
        return await asyncio.gather(*(one() for _ in range(4)), return_exceptions=True)

    outcomes = asyncio.run(crowd())
    assert sum(isinstance(one, Upload) for one in outcomes) == 2
    assert [one.problem.status for one in outcomes if isinstance(one, Refused)] == [503, 503]
    assert asyncio.run(room.read(sent, {})).picture  # the places are free again


def test_waiting_and_reading_end_with_the_time_of_the_request(heavy: Sent, task: DiagnosisTask) -> None:
    room = ScanRoom(rules(task))

    async def crowd() -> list[Upload | BaseException]:
        return await asyncio.gather(*(room.read(heavy, {}, 0.5) for _ in range(2)), return_exceptions=True)

    started = time.monotonic()
    outcomes = asyncio.run(crowd())
    assert [one.status for one in outcomes if isinstance(one, UploadError)] == [504, 504]
    assert time.monotonic() - started < 4


def test_a_cancelled_request_ends_its_reader_and_frees_its_place(heavy: Sent, sent: Sent, task: DiagnosisTask) -> None:
    room = ScanRoom(rules(task, max_waiting=0))

    async def leave() -> float:
        reading = asyncio.create_task(room.read(heavy, {}))
        await asyncio.sleep(1.5)
        started = time.monotonic()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return time.monotonic() - started

    assert asyncio.run(leave()) < 2
    assert asyncio.run(room.read(sent, {})).picture


def test_a_reader_killed_from_outside_is_a_503(heavy: Sent, task: DiagnosisTask) -> None:
    room = ScanRoom(rules(task))

    async def struck() -> None:
        before = children()
        reading = asyncio.create_task(room.read(heavy, {}))
        await asyncio.sleep(1)
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        await reading

    with pytest.raises(UploadError) as raised:
        asyncio.run(struck())
    assert raised.value.status == 503


def test_a_reader_that_its_file_breaks_is_a_422(heavy: Sent, task: DiagnosisTask) -> None:
    room = ScanRoom(rules(task))

    async def struck() -> None:
        before = children()
        reading = asyncio.create_task(room.read(heavy, {}))
        await asyncio.sleep(1)
        (pid,) = children() - before
        os.kill(pid, signal.SIGSEGV)
        await reading

    with pytest.raises(UploadError) as raised:
        asyncio.run(struck())
    assert (raised.value.status, raised.value.message) == (422, "cannot be read: it broke its reader")


def test_a_spare_reader_is_ready_and_each_reads_once(sent: Sent, task: DiagnosisTask) -> None:
    room = ScanRoom(rules(task))
    before = children()
    room.warm()
    try:
        (first,) = children() - before
        time.sleep(5)
        started = time.monotonic()
        upload = asyncio.run(room.read(sent, {}))
        warm_s = time.monotonic() - started
        (second,) = children() - before
        assert first != second and upload.picture
        os.kill(second, signal.SIGKILL)
        time.sleep(0.5)
        started = time.monotonic()
        assert asyncio.run(room.read(sent, {})) == upload
        assert warm_s < time.monotonic() - started
    finally:
        room.close()


def test_the_reader_has_none_of_our_environment(
    sent: Sent, task: DiagnosisTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    room = ScanRoom(rules(task))
    before = children()
    room.warm()
    try:
        (pid,) = children() - before
        time.sleep(0.5)
        assert b"canary" not in Path("/proc", str(pid), "environ").read_bytes()
    finally:
        room.close()


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"null", b'{"error": {}}', b'{"picture": 3, "slices": []}'])
def test_what_is_no_answer_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"Error|Expecting"):
        read_answer(line)
