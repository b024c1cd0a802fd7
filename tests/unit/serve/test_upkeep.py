"""What changes while the endpoint runs is taken, and what goes wrong once does not end the looking."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clinical_reasoner.config.serving import ServingConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.operating_point import OPERATING_POINT_FILE, OperatingPoint
from clinical_reasoner.serving.keys import read_keyring
from clinical_reasoner.serving.new_keys import add_key, revoke_key
from serve.access import Door
from serve.desk import Desk
from serve.points import PointFile
from serve.upkeep import keep_up
from tests.unit.serve.desks import plain_desk
from tests.unit.serve.test_api import PANEL, desk_of

CANARY = "Zebulon"


class BrokenPoints(PointFile):
    """Storage that fails in a way that nobody thought of."""

    def read(self) -> OperatingPoint | None:
        raise ConnectionResetError(CANARY)


def points(folder: Path, kind: type[PointFile] = PointFile) -> PointFile:
    return kind(str(folder), None, PANEL)


def with_keys(folder: Path) -> Desk:
    """A desk whose keys were read from `keys.yaml`, which has the key `one`."""
    file = str(folder / "keys.yaml")
    add_key(file, "one")
    desk = desk_of(folder, reload_s=0.01)
    desk.limits = ServingConfig(reload_s=0.01, api_keys=file)
    desk.door = Door(desk.limits, read_keyring(file))
    return desk


def run_until(desk: Desk, kept: PointFile, *steps: Callable[[], bool]) -> None:
    """Each step is done again and again, while the upkeep runs, until it is true."""

    async def scene() -> None:
        task = asyncio.create_task(keep_up(desk, kept))
        async with asyncio.timeout(10):
            for step in steps:
                while not step():
                    assert not task.done()
                    await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(scene())


def is_expired(desk: Desk) -> bool:
    assert desk.door.keyring is not None
    return desk.door.keyring.keys[0].expires is not None


def test_a_change_from_before_the_first_look_counts_whatever_its_time(tmp_path: Path) -> None:
    desk = with_keys(tmp_path)
    file = tmp_path / "keys.yaml"
    old = file.stat()
    revoke_key(str(file), "one")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    run_until(desk, points(tmp_path), lambda: is_expired(desk))


def test_failing_storage_does_not_keep_a_revoked_key_alive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = with_keys(tmp_path)

    def failed() -> bool:
        return "ConnectionResetError" in caplog.text

    def revoked() -> bool:
        if not is_expired(desk):
            revoke_key(str(tmp_path / "keys.yaml"), "one")
        return is_expired(desk)

    run_until(desk, points(tmp_path, BrokenPoints), failed, revoked)
    assert caplog.text.count("ConnectionResetError") == 1, "said once"
    assert CANARY not in caplog.text


def test_a_file_that_was_unusable_for_a_time_is_taken_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = with_keys(tmp_path)
    file = tmp_path / "keys.yaml"
    revoke_key(str(file), "one")
    good, old = file.read_bytes(), file.stat()
    file.write_bytes(b"keys: [")

    def mended() -> bool:
        if "the API keys: " not in caplog.text:
            return False
        assert not is_expired(desk)
        file.write_bytes(good)
        os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
        return True

    with caplog.at_level(logging.WARNING):
        run_until(desk, points(tmp_path), mended, lambda: is_expired(desk))
    assert "changed API keys are in use" in caplog.text


def test_an_endpoint_without_keys_is_kept_up_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = plain_desk(PANEL, {}, tmp_path, reload_s=0.01)
    run_until(desk, points(tmp_path, BrokenPoints), lambda: "ConnectionResetError" in caplog.text)
    assert "API keys" not in caplog.text


def test_an_operating_point_that_cannot_be_read_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / OPERATING_POINT_FILE).mkdir(parents=True)
    with pytest.raises(UserError, match=r"operating_point\.json: cannot be read"):
        points(tmp_path).read()
    with pytest.raises(UserError, match=r"serving\.operating_point: no file at .*none\.json"):
        PointFile(str(tmp_path), str(tmp_path / "none.json"), PANEL).read()
