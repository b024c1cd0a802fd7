"""What is looked at while the endpoint runs: a new operating point, a changed file of API keys."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

from clinical_reasoner.errors import UserError
from clinical_reasoner.operating_point import OperatingPoint
from clinical_reasoner.serving.keys import read_keyring
from serve.desk import Desk
from serve.points import PointFile

LOG = logging.getLogger("ray.serve")


async def keep_up(desk: Desk, points: PointFile) -> None:
    """Until it is cancelled: every `serving.reload_s` take what has changed. A file that cannot be used leaves what was
    there, and is named in the log."""
    seen = _modified(desk.limits.api_keys)
    while True:
        await asyncio.sleep(desk.limits.reload_s)
        await take_operating_point(desk, points)
        now = _modified(desk.limits.api_keys)
        if desk.limits.api_keys is not None and now != seen:
            seen = now
            take_keys(desk, desk.limits.api_keys)


async def take_operating_point(desk: Desk, points: PointFile) -> None:
    """The file as it is now, where it differs from the one in use. A file that is gone changes nothing."""
    try:
        found = await asyncio.to_thread(points.read)
    except UserError as error:
        LOG.error("the operating point is not changed: %s", error)
        return
    if found is not None and _version(found) != _version(desk.panel.operating_point):
        desk.panel = replace(desk.panel, operating_point=found)
        LOG.warning("operating point %s is in use", found.version)


def take_keys(desk: Desk, path: str) -> None:
    try:
        desk.door.replace(read_keyring(path))
        LOG.warning("the file of API keys was read anew")
    except UserError as error:
        LOG.error("the API keys are not changed: %s", error)


def _version(point: OperatingPoint | None) -> str | None:
    return point.version if point else None


def _modified(path: str | None) -> float | None:
    """Time of its last change; None where it is not there. Kubernetes swaps a link, so that it is followed."""
    if path is None:
        return None
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return None
