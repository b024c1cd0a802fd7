"""What is looked at while the endpoint runs: a new operating point, a changed file of API keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from clinical_reasoner.errors import UserError
from clinical_reasoner.serving.keys import read_keyring
from serve.desk import Desk
from serve.points import PointFile

LOG = logging.getLogger("ray.serve")


async def keep_up(desk: Desk, points: PointFile) -> None:
    """Until it is cancelled: every `serving.reload_s` take what has changed, the keys first. A file that cannot be used
    leaves what was there, is named in the log, and is read again the next time."""
    steps: dict[str, Callable[[], Awaitable[None]]] = {
        "the API keys": lambda: take_keys(desk),
        "the operating point": lambda: take_operating_point(desk, points),
    }
    failures = dict.fromkeys(steps, "")
    while True:
        await asyncio.sleep(desk.limits.reload_s)
        for name, take in steps.items():
            failure = await _failure(take)
            if failure and failure != failures[name]:  # said once, not at every look
                LOG.error("not changed: %s: %s", name, failure)
            failures[name] = failure


async def take_keys(desk: Desk) -> None:
    """The keys as the file has them now, local or on S3, where they differ from those in use. Raises UserError where it
    cannot be used."""
    path = desk.limits.api_keys
    if path is None:
        return
    found = await asyncio.to_thread(read_keyring, path)
    if found != desk.door.keyring:
        desk.door.replace(found)
        LOG.warning("changed API keys are in use")


async def take_operating_point(desk: Desk, points: PointFile) -> None:
    """The file as it is now, where it differs from the one in use. A file of the run that is gone changes nothing.
    Raises UserError where it cannot be used."""
    found = await asyncio.to_thread(points.read)
    if found is not None and found != desk.panel.operating_point:
        desk.panel = replace(desk.panel, operating_point=found)
        LOG.warning("operating point %s is in use", found.version)


async def _failure(take: Callable[[], Awaitable[None]]) -> str:
    """What went wrong; empty where nothing did."""
    try:
        await take()
    except UserError as error:
        return str(error)
    except Exception as error:  # whatever it is, a key that is revoked later must still be taken
        return type(error).__name__
    return ""
